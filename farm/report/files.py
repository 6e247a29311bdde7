"""The report forms as files in a run's folder."""

from __future__ import annotations

from pathlib import Path

from farm.judge.run_folder import replace_text
from farm.model import Run
from farm.report.html import report_html
from farm.report.plain import report_text

__all__ = ["HTML_NAME", "TEXT_NAME", "write_reports"]

HTML_NAME = "report.html"
TEXT_NAME = "report.txt"


def write_reports(run_folder: Path, run: Run) -> tuple[Path, ...]:
    """Write every report form of ``run`` and return their paths, the HTML one first.

    A file appears whole or not at all. Raises BenchError (part ``disk``) when it cannot be written.
    """
    forms = {HTML_NAME: report_html(run), TEXT_NAME: report_text(run)}
    for name, text in forms.items():
        replace_text(run_folder / name, text)
    return tuple(run_folder / name for name in forms)
