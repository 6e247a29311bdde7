"""A run as one HTML file that needs nothing else: no script, no load from anywhere.

Links lead only to paths below the run's folder.
"""

from __future__ import annotations

from farm.model import Run
from farm.report.pages import render
from farm.report.summary import (
    MEANING,
    confidence,
    headline,
    matrix,
    recovery_text,
    verdict_counts,
)

__all__ = ["report_html"]


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [
        ("run", run.run_id),
        ("board", f"{run.board} (virtual)" if run.virtual else run.board),
        ("environment", run.lg_env),
        ("kernel", run.kernel_release or "unknown"),
        ("build id", run.build_id or "unknown"),
        ("command", " ".join(run.command)),
        ("started", run.started),
        ("finished", run.finished or "not finished"),
    ]
    if run.planned_cycles:
        facts.append(("planned", f"{run.planned_cycles} cycles"))
    return facts


def report_html(run: Run) -> str:
    """Write the run as one self-contained HTML document."""
    return render(
        "report.html.j2",
        run=run,
        headline=headline(run),
        meaning=MEANING[run.verdict],
        confidence=confidence(run),
        recoveries=recovery_text(run),
        counts=verdict_counts(run.cycles),
        rows=matrix(run),
        run_facts=_facts(run),
    )
