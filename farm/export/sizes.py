"""Sizes of all records as CSV (RFC 4180, UTF-8): a line per device and cycle that counts.

No cell is taken for a formula by a spreadsheet: one that begins like one has an apostrophe before.
"""

from __future__ import annotations

import csv
import io

from farm.export.results import Results
from farm.report.printable import visible

__all__ = ["safe_cell", "sizes_csv"]

_COLUMNS = (
    *("results", "kernel", "release", "build_id", "board", "virtual", "scenario", "channels"),
    *("repeat", "started", "device", "driver", "record_bytes", "data_bytes", "budget_bytes"),
    *("verdict", "why"),
)


def safe_cell(text: str) -> str:
    """``text`` on one line, which no spreadsheet takes for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@", "|", "%")) else shown


def sizes_csv(results: Results) -> str:
    """Write the sizes of all records."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for suite, case in results.cases():
        for row in case.cycle.result.devices if case.cycle else ():
            texts = (
                *(results.name, suite.kernel.label, suite.kernel.release, suite.kernel.build_id),
                *(suite.board, "virtual" if suite.virtual else "hardware"),
                *(case.scenario, "+".join(case.channels)),
            )
            writer.writerow(
                (
                    *map(safe_cell, texts),
                    case.repeat,
                    safe_cell(case.started),
                    safe_cell(row.device),
                    safe_cell(row.driver),
                    row.record_bytes,
                    row.data_bytes,
                    "" if row.budget_bytes is None else row.budget_bytes,
                    row.verdict.value,
                    safe_cell(row.why),
                )
            )
    return out.getvalue()
