"""The last stage of the data flow: judged runs and nights on a terminal, in a log, in HTML.

Works from `farm.model.Run` and `farm.model.Night` alone, at any later time; knows neither board
nor labgrid. `farm.report.night` writes the pages of a night.
"""

from farm.report.files import write_reports
from farm.report.html import report_html
from farm.report.plain import report_text
from farm.report.terminal import print_run

__all__ = ["print_run", "report_html", "report_text", "write_reports"]
