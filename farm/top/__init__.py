"""The live view: what every board of a night does now, for a terminal, a page or a program."""
