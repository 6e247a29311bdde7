"""Real captures, damaged at random: no wrong byte passes, and no bench blames the kernel.

`make mutation` damages more of them.
"""

from __future__ import annotations

import random

import pytest

from farm.judge import judge
from farm.judge.run_folder import checked
from farm.model import FindingKind, Verdict

from .cycles import only
from .mutation import DAMAGES, NAMES, Golden, Mutant, load, tally

COUNT = 400
CYCLES = [cycle for name in NAMES for cycle in load(name)]


@pytest.mark.parametrize("cycle", CYCLES, ids=[one.name for one in CYCLES])
def test_the_captures_pass_as_they_were_recorded(cycle: Golden) -> None:
    result = judge(cycle.cycle, lambda one: checked(one, cycle.files[one.path]))
    assert result.verdict is Verdict.PASS, result.why
    assert Mutant(cycle, cycle, random.Random(1)).right()


def test_no_damage_is_judged_wrongly() -> None:
    found = tally(COUNT, seed=20)
    assert not found.mistakes
    assert found.count == COUNT
    assert set(found.verdicts) == {one.__name__ for one in DAMAGES}


def test_regions_equal_the_memory_at_their_addresses() -> None:
    cycle = next(one for one in CYCLES if one.name == "elf-ecc16")
    result = judge(cycle.cycle, lambda one: checked(one, cycle.files[one.path]))
    found = only(result, FindingKind.MEMORY_EQUAL)
    planted = sum(
        not region.decided_in_panic
        for device in (cycle.cycle.manifest.devices if cycle.cycle.manifest else ())
        if device.driver == "panicdump-sample"
        for region in device.regions
    )
    assert found.message.startswith(f"{planted} regions, ")
