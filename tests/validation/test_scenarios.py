"""The validation suite: each scenario of the catalogue, and what must follow from it.

Every scenario is run once on the board; each expectation is a test of its own, so that a report
says which one was not met. A failing bench is an error of the set-up, not a failed expectation.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farm.model import Cycle, FindingKind, Verdict
from farm.scenarios import CATALOGUE

pytestmark = pytest.mark.board

_BOARD = {
    FindingKind.NO_PANIC,
    FindingKind.COLD_RESET,
    FindingKind.WRONG_KERNEL,
    FindingKind.HUNG,
}
_IDENTITY = {FindingKind.STALE, FindingKind.WRONG_IDENTITY, FindingKind.UNEXPECTED}


@pytest.fixture(scope="module", params=[entry.name for entry in CATALOGUE])
def cycle(request: pytest.FixtureRequest, panic_cycle: Callable[..., Cycle]) -> Cycle:
    """One cycle of the scenario, shared by its expectations."""
    done = panic_cycle(request.param)
    if done.result.verdict is Verdict.SKIP:
        pytest.skip(f"not possible on this board: {done.result.why}")
    return done


def _wrong(cycle: Cycle, kinds: set[FindingKind]) -> list[str]:
    return [
        finding.message
        for finding in cycle.result.findings
        if finding.kind in kinds and finding.verdict is not Verdict.PASS
    ]


def test_the_board_panics_and_comes_back_warm(cycle: Cycle) -> None:
    assert cycle.input.panic is not None
    assert cycle.input.panic.signature_found
    assert cycle.input.panic.reset == "warm"
    assert _wrong(cycle, _BOARD) == []


def test_devices_were_registered(cycle: Cycle) -> None:
    assert cycle.input.manifest is not None
    assert cycle.input.manifest.devices
    assert len(cycle.result.devices) >= len(cycle.input.manifest.devices)


def test_every_dump_arrives_intact(cycle: Cycle) -> None:
    wrong = {row.device: row.why for row in cycle.result.devices if row.verdict is not Verdict.PASS}
    assert wrong == {}


def test_every_dump_is_of_this_panic(cycle: Cycle) -> None:
    assert _wrong(cycle, _IDENTITY) == []


def test_the_dumps_keep_the_budget(cycle: Cycle) -> None:
    assert _wrong(cycle, {FindingKind.OVER_BUDGET, FindingKind.OVERFLOW}) == []
    assert 0 < cycle.result.used_bytes <= cycle.result.capacity_bytes


def test_the_verdict_is_pass(cycle: Cycle) -> None:
    assert cycle.result.verdict is Verdict.PASS, cycle.result.why
