"""Boards on other hosts: exporting them, and a bench made of a place that an exporter serves."""
