"""Sign-off of a release: a policy held against what was run, GO or NO-GO with the evidence.

The result is a folder that can be verified by itself and signed. Results of another build never
count, those of virtual boards never as hardware.
"""
