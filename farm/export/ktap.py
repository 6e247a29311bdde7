"""KTAP version 1 (Documentation/dev-tools/ktap.rst, Linux 6.12): a suite per kernel and board.

KTAP's readers know ok, not ok and SKIP; tools/testing/kunit takes every other directive for a
failure. A failing bench and a hole are therefore written as SKIP, with the word ERROR or MISS.
"""

from __future__ import annotations

from collections.abc import Iterator

from farm.export.lines import case_lines
from farm.export.results import Case, Outcome, Results, Suite
from farm.report.printable import visible

__all__ = ["ktap_text"]


def _name(text: str) -> str:
    """A test's name: '#' begins a directive, and a number at its start would be taken for one."""
    shown = visible(text, ascii_only=True, limit=300).replace("\\", "/").replace("#", "no.")
    return " ".join(shown.split()) or "unnamed"


def _said(text: str) -> str:
    return visible(text, ascii_only=True, limit=300).replace("#", "no.")


def _case(number: int, case: Case) -> Iterator[str]:
    name = _name(case.name)
    if case.outcome is Outcome.PASS:
        yield f"    ok {number} - {name}"
        return
    if case.outcome is Outcome.FAIL:
        yield from (f"    # {_said(line)}" for line in case_lines(case, ascii_only=True))
        yield f"    not ok {number} - {name}"
        return
    word = "" if case.outcome is Outcome.SKIP else f"{case.outcome.value} (the bench, no kernel): "
    yield f"    ok {number} - {name} # SKIP {word}{_said(case.why)}"


def _suite(number: int, suite: Suite) -> Iterator[str]:
    yield "    KTAP version 1"
    yield f"    # Subtest: {_name(suite.name)}"
    yield f"    1..{len(suite.cases)}"
    for at, case in enumerate(suite.cases, 1):
        yield from _case(at, case)
    name = _name(suite.name)
    if suite.count(Outcome.FAIL):
        yield f"not ok {number} - {name}"
    elif suite.count(Outcome.PASS):
        yield f"ok {number} - {name}"
    else:
        yield f"ok {number} - {name} # SKIP nothing was proven"


def ktap_text(results: Results) -> str:
    """Write the results as KTAP; ASCII only."""
    lines = ["KTAP version 1", f"1..{len(results.suites)}"]
    for at, suite in enumerate(results.suites, 1):
        lines.extend(_suite(at, suite))
    return "\n".join(lines) + "\n"
