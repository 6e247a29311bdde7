"""Real captures, damaged at random: no wrong byte passes, and no bench blames the kernel.

`make mutation` damages more of them.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.judge import judge
from farm.judge.run_folder import checked
from farm.model import FindingKind, Verdict

from .cycles import only
from .mutation import DAMAGES, NAMES, Golden, Mutant, load, tally

COUNT = 300
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


@settings(max_examples=60, deadline=None)
@given(
    cycle=st.sampled_from(CYCLES),
    edits=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.floats(0, 1, exclude_max=True),
            st.sampled_from(["overwrite", "cut", "insert", "drop", "copy"]),
            st.binary(min_size=1, max_size=24),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_no_edit_of_captures_passes_unless_every_byte_is_right(
    cycle: Golden, edits: list[tuple[float, float, str, bytes]]
) -> None:
    mutant = Mutant(cycle, cycle, random.Random(0))
    for which, where, edit, content in edits:
        captures = mutant.captures
        if not captures:
            break
        capture = captures[int(which * len(captures))]
        data = mutant.files[capture.path]
        at = int(where * len(data))
        if capture.paddr is not None and edit in ("insert", "copy"):
            # Mending a zone of which each block is damaged takes long and shows nothing new.
            edit = "overwrite"
        if edit == "drop":
            captures.remove(capture)
        elif edit == "copy":
            mutant.files[capture.path] = mutant.files[captures[int(where * len(captures))].path]
        elif edit == "cut":
            mutant.files[capture.path] = data[:at]
        else:
            rest = data[at:] if edit == "insert" else data[at + len(content) :]
            mutant.files[capture.path] = data[:at] + content + rest
    if mutant.judged().verdict is Verdict.PASS:
        assert mutant.right()
