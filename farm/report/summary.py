"""What a run says in a few plain words: the same words on the terminal, in logs and in HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from farm.model import Cycle, Finding, FindingKind, Run, Verdict
from farm.report.printable import duration_text, size_text, visible

__all__ = [
    "MatrixRow",
    "board_label",
    "channel_text",
    "confidence",
    "finding_label",
    "finding_text",
    "headline",
    "in_full",
    "matrix",
    "recovery_text",
    "shown_findings",
    "verdict_counts",
]

MEANING = {
    Verdict.PASS: "every dump arrived intact",
    Verdict.FAIL: "the kernel failed",
    Verdict.ERROR: "the bench failed; this says nothing about the kernel",
    Verdict.SKIP: "not possible on this board; nothing was proven",
}

_CONFIDENCE_MIN_CYCLES = 3  # below that 3/n says "at most always"


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One scenario of the matrix; ``cells`` are its cycles in order of repeat."""

    scenario: str
    cells: tuple[Cycle, ...]


def channel_text(cycle: Cycle) -> list[str]:
    """What reading each channel cost, a line each."""
    return [
        f"channel {visible(read.channel)}: {size_text(read.wanted_bytes)} wanted, "
        f"{size_text(read.received_bytes)} over the wire, {duration_text(read.seconds)}"
        for read in cycle.input.channels
    ]


def recovery_text(run: Run) -> list[str]:
    """How the board was got back after each cycle that had left it behind, a line per step."""
    return [
        f"recovery after cycle {recovery.cycle}: {step.step}, {duration_text(step.seconds)}, "
        f"{'succeeded' if step.succeeded else 'failed'}; why: {visible(step.reason)}; "
        f"outcome: {visible(step.outcome)}"
        for recovery in run.recoveries
        for step in recovery.steps
    ]


def verdict_counts(cycles: Sequence[Cycle]) -> dict[Verdict, int]:
    """Count the cycles per verdict, every verdict listed."""
    counted = Counter(cycle.result.verdict for cycle in cycles)
    return {verdict: counted[verdict] for verdict in Verdict}


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _worst_cycle(cycles: Sequence[Cycle]) -> Cycle | None:
    for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.SKIP):
        for cycle in cycles:
            if cycle.result.verdict is verdict:
                return cycle
    return None


def _unfinished(run: Run) -> str:
    if not (run.interrupted or run.ended_early):
        return ""
    ran = _plural(len(run.cycles), "cycle")
    if run.planned_cycles:
        ran = f"{len(run.cycles)} of {_plural(run.planned_cycles, 'planned cycle')}"
    end = "was interrupted" if run.interrupted else "ended early"
    reason = f" ({visible(run.ended_early)})" if run.ended_early else ""
    return f" The run {end} after {ran}{reason}."


def headline(run: Run) -> str:
    """Say the run's outcome in one or two plain sentences, the worst thing first."""
    if not run.cycles:
        return "No cycle was finished: nothing was proven." + _unfinished(run)
    counts = verdict_counts(run.cycles)
    total = len(run.cycles)
    parts = []
    if counts[Verdict.FAIL]:
        parts.append(f"the kernel failed in {counts[Verdict.FAIL]} of {_plural(total, 'cycle')}")
    if counts[Verdict.ERROR]:
        parts.append(f"the bench failed in {counts[Verdict.ERROR]} of {_plural(total, 'cycle')}")
    if counts[Verdict.PASS]:
        every = counts[Verdict.PASS] == total
        scope = (
            ("in the one cycle" if total == 1 else f"in all {total} cycles")
            if every
            else f"in {counts[Verdict.PASS]} of {_plural(total, 'cycle')}"
        )
        parts.append(f"every expected dump arrived intact {scope}")
    if counts[Verdict.SKIP]:
        parts.append(f"{_plural(counts[Verdict.SKIP], 'cycle')} not possible on this board")
    sentence = "; ".join(parts)
    sentence = sentence[0].upper() + sentence[1:] + "."
    worst = _worst_cycle(run.cycles)
    if worst is not None:
        sentence += (
            f" First: {visible(worst.scenario)} #{worst.repeat}: {visible(worst.result.why)}."
        )
    return sentence + _unfinished(run)


def confidence(run: Run) -> str:
    """Say what the number of clean cycles proves (rule of three), or nothing."""
    counts = verdict_counts(run.cycles)
    if counts[Verdict.FAIL] or counts[Verdict.PASS] < _CONFIDENCE_MIN_CYCLES:
        return ""
    passed = counts[Verdict.PASS]
    bound = min(1.0, 3 / passed)
    return (
        f"No failure in {passed} judged cycles bounds the failure rate at about "
        f"{100 * bound:.0f} % with 95 % confidence."
    )


def in_full(run: Run, cycle: Cycle) -> bool:
    """Whether a reader is shown all of a cycle at once: what went wrong, and the first cycle."""
    return cycle.result.verdict in (Verdict.FAIL, Verdict.ERROR) or cycle is run.cycles[0]


def board_label(run: Run) -> str:
    """Name the board, and say so when it is not hardware."""
    name = visible(run.board)
    return f"{name} (VIRTUAL BOARD, does not count as hardware)" if run.virtual else name


def matrix(run: Run) -> tuple[MatrixRow, ...]:
    """Sort the cycles into scenario by repeat, scenarios in order of first appearance."""
    rows: dict[str, list[Cycle]] = {}
    for cycle in run.cycles:
        rows.setdefault(cycle.scenario, []).append(cycle)
    return tuple(
        MatrixRow(name, tuple(sorted(cycles, key=lambda cycle: (cycle.repeat, cycle.number))))
        for name, cycles in rows.items()
    )


_WEIGHT = {Verdict.FAIL: 0, Verdict.ERROR: 1, Verdict.SKIP: 2, Verdict.PASS: 3}


def shown_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Pick the findings worth reading, the heaviest first: the table already says "intact"."""
    return tuple(
        sorted(
            (finding for finding in findings if finding.kind is not FindingKind.INTACT),
            key=lambda finding: _WEIGHT[finding.verdict],
        )
    )


def finding_label(finding: Finding) -> str:
    """What kind of finding it is, and who has to act on it."""
    return finding.kind.value + (f" ({finding.blame.value})" if finding.blame else "")


def finding_text(finding: Finding) -> str:
    """Say what was found and, where bytes were compared, what they are; not made visible yet."""
    evidence = finding.evidence
    if evidence is None or evidence.wrong_bytes is None or evidence.expected is None:
        return finding.message
    return f"{finding.message}: expected {evidence.expected}, got {evidence.got}"
