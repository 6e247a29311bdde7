"""Machine forms of a run or a night: what other programs read, each in its own published shape.

Works from `farm.model.Run` and `farm.model.Night` alone, at any later time. In no form does a
failing bench (ERROR), a SKIP or a hole count as a failure of the kernel.
"""

from farm.export.files import FORMS, write_night_exports, write_run_exports
from farm.export.results import Results, load_results, results_of_night, results_of_run

__all__ = [
    "FORMS",
    "Results",
    "load_results",
    "results_of_night",
    "results_of_run",
    "write_night_exports",
    "write_run_exports",
]
