"""The text of a mail, in the order that kernel lists are used to: verdict, identity, regressions
(against what), fixes, totals, suites. Plain ASCII, folded at 78 columns where words allow it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from farm.export.results import Case, Outcome, Results, Suite, verdict_of
from farm.model import Verdict
from farm.report.printable import duration_text, visible

__all__ = ["Change", "changes", "mail_text"]

_WIDTH = 78
_SHOWN = 30

_Key = tuple[str, str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Change:
    """A scenario on a board that was judged in both, and differently; ``why`` of the later."""

    kernel: str
    board: str
    scenario: str
    channels: tuple[str, ...]
    why: str


def _judged(results: Results) -> dict[_Key, tuple[Verdict, str]]:
    grouped: dict[_Key, list[Case]] = {}
    for suite, case in results.cases():
        if case.outcome in (Outcome.PASS, Outcome.FAIL):
            key = (suite.kernel.name, suite.board, case.scenario, tuple(sorted(case.channels)))
            grouped.setdefault(key, []).append(case)
    judged = {}
    for key, cases in grouped.items():
        failed = next((case.why for case in cases if case.outcome is Outcome.FAIL), "")
        judged[key] = (verdict_of(tuple(cases)), failed)
    return judged


def changes(before: Results, now: Results) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Regressions and fixes: PASS before and FAIL now, and the reverse.

    What a failing bench, a SKIP or a hole left unjudged on either side is neither.
    """
    was, judged = _judged(before), _judged(now)
    regressions, fixes = [], []
    for key, (verdict, why) in judged.items():
        if key not in was or was[key][0] is verdict:
            continue
        if verdict is Verdict.FAIL:
            regressions.append(Change(*key, why))
        else:
            fixes.append(Change(*key, was[key][1]))
    return tuple(regressions), tuple(fixes)


def _fold(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        visible(text, ascii_only=True),
        width=_WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _heading(text: str) -> list[str]:
    return ["", text, "-" * len(text)]


def _changes(what: str, against: Results | None, found: Iterable[Change]) -> Iterator[str]:
    if against is None:
        yield from _heading(what)
        yield "  not known: nothing to compare with"
        return
    known = tuple(found)
    yield from _heading(f"{what} (against {visible(against.name, ascii_only=True)[:50]})")
    if not known:
        yield "  none"
    for one in known[:_SHOWN]:
        channels = f" [{','.join(one.channels)}]" if one.channels else ""
        kernel = f", {one.kernel}" if one.kernel else ""
        yield from _fold(f"{one.scenario}{channels} on {one.board}{kernel}", "* ")
        yield from _fold(one.why, "    ")
    if len(known) > _SHOWN:
        yield f"  and {len(known) - _SHOWN} more"


def _counts(suites: Iterable[Suite]) -> str:
    listed = tuple(suites)
    total = sum(len(suite.cases) for suite in listed)
    parts = [
        f"{outcome.value} {count}"
        for outcome in Outcome
        if (count := sum(suite.count(outcome) for suite in listed))
    ]
    return f"{total} planned: {', '.join(parts)}" if parts else "nothing was planned"


def _failures(results: Results) -> Iterator[str]:
    for outcome, heading in (
        (Outcome.FAIL, "Failures of the kernel"),
        (Outcome.ERROR, "Trouble of the bench (says nothing about the kernel)"),
        (Outcome.MISS, "Holes: planned, never judged"),
    ):
        found = [(suite, case) for suite, case in results.cases() if case.outcome is outcome]
        if not found:
            continue
        yield from _heading(heading)
        for suite, case in found[:_SHOWN]:
            yield from _fold(f"{case.name} on {suite.name}: {case.why}", "* ")
        if len(found) > _SHOWN:
            yield f"  and {len(found) - _SHOWN} more"


def mail_text(results: Results, before: Results | None = None) -> str:
    """Write the results, compared with those of ``before``."""
    lines = _fold(f"{results.verdict.value}: {results.title}, {results.name}")
    if results.virtual:
        every = all(suite.virtual for suite in results.suites)
        what = "All boards are" if every else "Some boards are"
        lines += _fold(f"{what} VIRTUAL: their results do not count as hardware.")
    for note in results.notes:
        lines += _fold(f"Note: {note}")
    lines += _heading("Identity")
    for kernel in dict.fromkeys(suite.kernel.label for suite in results.suites):
        one = next(suite.kernel for suite in results.suites if suite.kernel.label == kernel)
        lines += _fold(f"kernel:   {kernel}, release {one.release or 'unknown'}")
        lines += _fold(f"build id: {one.build_id or 'unknown'}", "  ")
        for name, value in one.sha256.items():
            lines += _fold(f"sha256 {name}: {value}", "  ")
    for board in dict.fromkeys(suite.board for suite in results.suites):
        virtual = any(suite.virtual for suite in results.suites if suite.board == board)
        lines += _fold(f"board:    {board}{' (virtual)' if virtual else ''}")
    lines += _fold(
        f"farm:     {results.farm_version}, started {results.started}, "
        f"took {duration_text(results.wall_s)}"
    )
    regressions, fixes = changes(before, results) if before else ((), ())
    lines += _changes("Regressions", before, regressions)
    lines += _changes("Fixes", before, fixes)
    lines += _failures(results)
    lines += _heading("Totals")
    lines += _fold(f"cycles {_counts(results.suites)}", "  ")
    lines += _heading("Suites")
    for suite in results.suites:
        lines += _fold(f"{suite.name}: {_counts([suite])}", "* ")
        for note in suite.notes:
            lines += _fold(note, "    ")
    return "\n".join(lines) + "\n"
