"""A run as plain lines for the log of a CI job: no tables, no colour, ASCII only, easy to grep."""

from __future__ import annotations

from farm.model import Run
from farm.report.printable import duration_text, ratio_text, visible
from farm.report.summary import (
    board_label,
    channel_text,
    confidence,
    finding_label,
    finding_text,
    headline,
    recovery_text,
    shown_findings,
    verdict_counts,
)

__all__ = ["report_text"]


def report_text(run: Run) -> str:
    """Write the run as lines; each device and finding is one line that begins with its verdict."""

    def shown(text: str) -> str:
        return visible(text, ascii_only=True)

    lines = [
        f"{run.verdict.value} run {shown(run.run_id)}: {shown(headline(run))}",
        f"board {shown(board_label(run))}",
        f"kernel {shown(run.kernel_release or 'unknown')} "
        f"build-id {shown(run.build_id or 'unknown')}",
        f"time wall {duration_text(run.wall_s)}, board {duration_text(run.board_s)}, "
        f"ratio {ratio_text(run.wall_to_board)}",
    ]
    for cycle in run.cycles:
        where = f"cycle {cycle.number} {shown(cycle.scenario)} #{cycle.repeat}"
        lines.append(f"{cycle.result.verdict.value} {where}: {shown(cycle.result.why)}")
        for row in cycle.result.devices:
            budget = "" if row.budget_bytes is None else f" of {row.budget_bytes} B budget"
            lines.append(
                f"  {row.verdict.value} {shown(row.device)} ({shown(row.driver)}) "
                f"{row.record_bytes} B{budget}: {shown(row.why)}"
            )
        lines.extend(
            f"  {finding.verdict.value} [{finding_label(finding)}] {shown(finding_text(finding))}"
            for finding in shown_findings(cycle.result.findings)
        )
        if len(cycle.input.channels) > 1:
            lines.extend(f"  {shown(line)}" for line in channel_text(cycle))
    lines.extend(shown(line) for line in recovery_text(run))
    if note := confidence(run):
        lines.append(note)
    counts = ", ".join(f"{verdict.value} {n}" for verdict, n in verdict_counts(run.cycles).items())
    lines.append(f"cycles {counts}")
    return "\n".join(lines) + "\n"
