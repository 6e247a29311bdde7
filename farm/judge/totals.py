"""The verdict of many cycles, and the exit code that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from farm.model import Verdict

__all__ = ["EXIT_CODES", "exit_code", "summarise"]

# A run that proved nothing must not look clean.
EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.ERROR: 3, Verdict.SKIP: 3}


def summarise(verdicts: Iterable[Verdict]) -> tuple[Verdict, dict[str, int]]:
    """Return the verdict of all cycles together, and the totals for ``run.json``.

    Any FAIL is FAIL, else any ERROR is ERROR, else any PASS is PASS, else SKIP. Cycles that were
    skipped beside ones that passed do not spoil the PASS; SKIP alone, or no cycle, is no PASS.
    Totals: ``cycles``, and how many of them were ``PASS``, ``FAIL``, ``ERROR`` and ``SKIP``.
    """
    counted = Counter(verdicts)
    worst = next(
        (verdict for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.PASS) if counted[verdict]),
        Verdict.SKIP,
    )
    totals = {"cycles": counted.total()}
    totals.update((verdict.value, counted[verdict]) for verdict in Verdict)
    return worst, totals


def exit_code(verdict: Verdict, *, unfinished: bool = False) -> int:
    """Exit code of ``farm``: 0 PASS; 1 FAIL; 3 ERROR, and SKIP alone, which proved nothing.

    A PASS of a run that is ``unfinished``, with cycles planned that never ran, is 3 as well.
    """
    if verdict is Verdict.PASS and unfinished:
        return EXIT_CODES[Verdict.ERROR]
    return EXIT_CODES[verdict]
