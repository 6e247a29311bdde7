"""The validation suite: each scenario of the catalogue, and what must follow from it.

Every scenario is run once on the board that --lg-env names; ``-m quick`` takes the quick subset. A
scenario that the board cannot run is skipped with what is missing; a failing bench is an error of
the set-up, not a failed expectation.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farm.model import Cycle, Expect, FindingKind, Verdict
from farm.scenarios import CATALOGUE, Scenario

pytestmark = pytest.mark.board

_IDENTITY = {FindingKind.STALE, FindingKind.WRONG_IDENTITY, FindingKind.UNEXPECTED}


def _wrong(cycle: Cycle, kinds: set[FindingKind]) -> list[str]:
    return [
        finding.message
        for finding in cycle.result.findings
        if finding.kind in kinds and finding.verdict is not Verdict.PASS
    ]


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(entry, id=entry.name, marks=[pytest.mark.quick] if entry.quick else [])
        for entry in CATALOGUE
    ],
)
def test_scenario(scenario: Scenario, panic_cycle: Callable[..., Cycle]) -> None:
    cycle = panic_cycle(scenario.name)
    result, manifest, panic = cycle.result, cycle.input.manifest, cycle.input.panic
    if result.verdict is Verdict.SKIP:
        pytest.skip(f"not possible on this board: {result.why}")
    wrong = {row.device: row.why for row in result.devices if row.verdict is not Verdict.PASS}
    assert result.verdict is Verdict.PASS, f"{result.why}\n{wrong}"
    # The judge says so; what it says is held against what it was given.
    assert manifest is not None
    assert panic is not None
    assert panic.signature_found
    assert (panic.panic_line is not None) == scenario.panics
    assert panic.reset == "warm"
    assert manifest.devices
    assert len(result.devices) >= len(manifest.devices)
    assert _wrong(cycle, _IDENTITY) == []
    records = [row for row in result.devices if row.record_bytes]
    if scenario.expect is Expect.NONE:
        assert records == []
    else:
        assert 0 < result.used_bytes <= result.capacity_bytes
    if scenario.expect is Expect.ALL:
        assert len(records) == len(manifest.devices)
    if scenario.table:
        assert any("table in the memory lists all" in one.message for one in result.findings)
