"""What a Qualcomm chip speaks when no kernel runs: Sahara, Firehose, fastboot; over one seam."""
