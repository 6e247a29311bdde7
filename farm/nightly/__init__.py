"""A night: every kernel, board, scenario and channel of a plan, boards side by side, resumable."""
