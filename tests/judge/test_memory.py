"""Regions in records beside the memory at their registered addresses; captures of a real panic."""

from __future__ import annotations

import random
from typing import Any

import pytest

from farm.judge.memory import MOST_BYTES, static_spans
from farm.model import CycleVerdict, FindingKind, ManifestRegion, Policy, RegionKind, Verdict

from .cycles import findings, only
from .mutation import Golden, Mutant, load, save_wrong

ELF = load("elf")[0]


def scene() -> Mutant:
    return Mutant(ELF, ELF, random.Random(7))


def judged(mutant: Mutant, *, planted: bool = True, policy: Policy | None = None) -> CycleVerdict:
    cycle = mutant.golden.cycle
    assert cycle.manifest is not None
    changes: dict[str, Any] = {"policy": policy or cycle.policy}
    if not planted:
        # Nobody knows then what the test devices must hold.
        changes["manifest"] = cycle.manifest.model_copy(update={"nonce": None})
    changed = cycle.model_copy(update=changes)
    mutant.golden = Golden(mutant.golden.name, changed, mutant.golden.files)
    return mutant.judged()


def change_memory(mutant: Mutant) -> None:
    """Change the first byte of every region that was read for comparison."""
    manifest = mutant.golden.cycle.manifest
    assert manifest is not None
    for capture in mutant.captures:
        if not capture.ground_truth or capture.paddr is None:
            continue
        data = bytearray(mutant.files[capture.path])
        for device in manifest.devices:
            for region in device.regions:
                at = -1 if region.pa is None else region.pa - capture.paddr
                if 0 <= at < len(data) and not region.decided_in_panic:
                    data[at] ^= 0xFF
        mutant.files[capture.path] = bytes(data)


def test_memory_that_changed_after_the_dump_is_told_from_a_wrong_record() -> None:
    mutant = scene()
    change_memory(mutant)
    result = judged(mutant)
    assert result.verdict is Verdict.PASS
    found = findings(result, FindingKind.MEMORY_DIFFERS)
    assert found
    assert all("the memory changed after the dump" in one.message for one in found)
    evidence = found[0].evidence
    assert evidence is not None
    assert (evidence.region_offset, evidence.wrong_bytes) == (0, 1)


def test_a_record_that_is_wrong_beside_right_memory_was_saved_wrong() -> None:
    for seed in range(40):
        mutant = Mutant(ELF, ELF, random.Random(seed))
        assert save_wrong(mutant)
        result = judged(mutant)
        assert result.verdict is Verdict.FAIL
        said = [one.message for one in findings(result, FindingKind.MEMORY_DIFFERS)]
        if said:
            assert "the memory holds what was planted, so it was saved wrong" in said[0]
            return
    raise AssertionError("no wrong byte hit a region whose memory was read")


def test_where_nothing_was_planted_a_difference_decides_only_what_policy_calls_static() -> None:
    mutant = scene()
    change_memory(mutant)
    result = judged(mutant, planted=False)
    assert result.verdict is Verdict.PASS
    assert "that cannot be told" in findings(result, FindingKind.MEMORY_DIFFERS)[0].message
    mutant = scene()
    change_memory(mutant)
    result = judged(mutant, planted=False, policy=Policy(static=("panicdump-sample",)))
    assert result.verdict is Verdict.FAIL
    assert "saved wrong" in result.why


def test_where_nothing_was_planted_equal_memory_is_more_than_a_crc() -> None:
    result = judged(scene(), planted=False)
    assert any(one.why.endswith("equal to the memory") for one in result.devices)


def test_memory_that_was_read_in_part_is_the_benchs_fault() -> None:
    mutant = scene()
    at = next(n for n, one in enumerate(mutant.captures) if one.ground_truth)
    mutant.captures[at] = mutant.captures[at].model_copy(update={"complete": False})
    result = judged(mutant)
    assert result.verdict is Verdict.ERROR
    assert only(result, FindingKind.CAPTURE_INCOMPLETE)


@pytest.mark.parametrize(("gap", "spans"), [(1 << 20, 2), (0, 1)])
def test_near_regions_are_read_as_one_and_only_so_much(gap: int, spans: int) -> None:
    manifest = ELF.cycle.manifest
    assert manifest is not None
    first = manifest.devices[0]

    def region(index: int, pa: int, size: int) -> ManifestRegion:
        return ManifestRegion(
            index=index,
            name="r",
            kind=RegionKind.BUFFER,
            va=pa + (1 << 40),
            pa=pa,
            size_bytes=size,
            width_bytes=0,
            stride_bytes=0,
        )

    regions = (
        region(0, 0x8000_0000, 4096),
        region(1, 0x8000_1000 + gap, 100),
        region(2, 0x9000_0000, MOST_BYTES),
    )
    one = first.model_copy(update={"regions": regions})
    found = static_spans(manifest.model_copy(update={"devices": (one,)}))
    # What would be too much altogether is left out.
    assert len(found) == spans
    assert sum(size for _, size in found) == 4196
    # A region mapped at a distance of its own may be scattered beyond its first page.
    lonely = first.model_copy(update={"regions": (region(0, 0x8000_0800, 9000),)})
    assert static_spans(manifest.model_copy(update={"devices": (lonely,)})) == (
        (0x8000_0800, 2048),
    )
