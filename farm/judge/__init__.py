"""The stage between decode and report: verdicts from what a cycle left on disk.

`judge` is pure; `run_folder` applies it to a stored run, offline, at any later time.
"""

from farm.judge.judge import judge
from farm.judge.totals import exit_code, summarise

__all__ = ["exit_code", "judge", "summarise"]
