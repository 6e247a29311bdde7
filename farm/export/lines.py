"""What a case has to say for itself, in lines that are safe in any text."""

from __future__ import annotations

from collections.abc import Iterator

from farm.export.results import Case
from farm.model import FindingKind, Verdict
from farm.report.printable import console_text, visible

__all__ = ["case_lines", "excerpt"]

_CONSOLE_LINES = 40


def case_lines(case: Case, *, ascii_only: bool = False) -> Iterator[str]:
    """Why the verdict, each device that is not PASS, each finding, the panic on the console."""
    yield visible(case.why, ascii_only=ascii_only)
    if case.cycle is None:
        return
    result = case.cycle.result
    for row in result.devices:
        if row.verdict is not Verdict.PASS:
            budget = "" if row.budget_bytes is None else f" of {row.budget_bytes} B budget"
            yield visible(
                f"{row.verdict.value} {row.device} ({row.driver}) {row.record_bytes} B{budget}: "
                f"{row.why}",
                ascii_only=ascii_only,
            )
    for finding in result.findings:
        if finding.kind is FindingKind.INTACT or finding.verdict is Verdict.PASS:
            continue
        place = ""
        if (evidence := finding.evidence) is not None and evidence.offset is not None:
            place = f" (at {evidence.offset:#x} of {evidence.file})"
        yield visible(
            f"{finding.verdict.value} [{finding.kind.value}] {finding.message}{place}",
            ascii_only=ascii_only,
        )
    if (panic := case.cycle.input.panic) is not None:
        for line in panic.panic_console_lines[-_CONSOLE_LINES:]:
            yield visible(f"| {console_text(line)}", ascii_only=ascii_only)


def excerpt(case: Case, limit: int) -> str:
    """`case_lines` as one text of at most ``limit`` characters, cut between lines."""
    text = ""
    for line in case_lines(case):
        if len(text) + len(line) + 1 > limit:
            break
        text += f"{line}\n"
    return text
