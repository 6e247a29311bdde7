"""Ground truth: regions in records beside the memory at their registered addresses.

A channel that reads RAM before the next boot can read the regions themselves. Where the farm knows
what a region must hold, memory that differs has changed since, or shows that the record is wrong.
Where it does not, a difference is both possible: the processor that panics goes on to run after the
dump. Policy says of which devices the memory stands still (``static``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from farm.errors import FarmError
from farm.judge.case import Case, Comparison, zone_finding
from farm.judge.content import first_difference, planted_bytes
from farm.judge.dump import Dump
from farm.judge.names import shown
from farm.judge.policy import is_static
from farm.model import (
    Capture,
    CycleInput,
    Evidence,
    Finding,
    FindingKind,
    Manifest,
    ManifestDevice,
    ManifestRegion,
    RegionKind,
    Subject,
    Verdict,
)

__all__ = ["compare_memory", "memory_findings", "static_spans"]

_PAGE_BYTES = 4096
# A read costs a round trip, so near regions are read as one.
_NEAR_BYTES = 64 << 10
MOST_BYTES = 8 << 20


def _static(manifest: Manifest) -> Iterator[tuple[ManifestDevice, ManifestRegion, int]]:
    """Every region whose place is known before the panic, and how many bytes lie in a row there.

    The registered address is that of the first byte. Where others are mapped at the same distance
    the mapping is linear; else the next page may lie elsewhere.
    """
    known = [
        (device, region, region.pa)
        # Of a boot that is still to come nothing is known about addresses.
        for device in (() if manifest.next_boot else manifest.devices)
        for region in device.regions
        if region.pa is not None and region.size_bytes > 0 and not region.decided_in_panic
        if region.kind is RegionKind.BUFFER
        or (region.kind is RegionKind.REGISTERS and region.stride_bytes == region.width_bytes)
    ]
    distances = Counter(region.va - pa for _, region, pa in known)
    for device, region, pa in known:
        in_a_row = region.size_bytes
        if distances[region.va - pa] == 1:
            in_a_row = min(in_a_row, _PAGE_BYTES - pa % _PAGE_BYTES)
        yield device, region, in_a_row


def static_spans(manifest: Manifest) -> tuple[tuple[int, int], ...]:
    """(physical address, size) of the buffers that memory can be read for; sorted, near ones one.

    Registers are left out: reading a device's may change it. At most 8 MiB in all.
    """
    ranges = sorted(
        (region.pa, region.pa + in_a_row)
        for _, region, in_a_row in _static(manifest)
        if region.kind is RegionKind.BUFFER and region.pa is not None
    )
    spans: list[tuple[int, int]] = []
    for start, end in ranges:
        if spans and start <= spans[-1][1] + _NEAR_BYTES:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    found, total = [], 0
    for start, end in spans:
        if total + end - start <= MOST_BYTES:
            found.append((start, end - start))
            total += end - start
    return tuple(found)


def compare_memory(
    cycle: CycleInput, manifest: Manifest, dump: Dump, read: Callable[[Capture], bytes]
) -> tuple[dict[tuple[int, int], Comparison], list[Finding]]:
    """Hold every region whose memory was captured against its record; never raises."""
    windows: list[tuple[Capture, bytes]] = []
    findings: list[Finding] = []
    for capture in cycle.captures:
        if not capture.ground_truth or capture.paddr is None:
            continue
        try:
            data = read(capture)
        except (FarmError, OSError) as error:
            findings.append(_incomplete(capture, str(error)))
            continue
        if capture.complete and len(data) == capture.size_bytes:
            windows.append((capture, data))
        else:
            why = capture.note or f"{len(data)} of {capture.size_bytes} bytes are there"
            findings.append(_incomplete(capture, why))
    found: dict[tuple[int, int], Comparison] = {}
    for device, region, in_a_row in _static(manifest) if windows else ():
        file = dump.devices.get(device.id)
        saved = None if file is None else _recorded(file.record.regions, region)
        assert region.pa is not None
        for capture, data in windows if saved is not None else ():
            assert capture.paddr is not None
            assert saved is not None
            offset = region.pa - capture.paddr
            size = min(in_a_row, len(saved))
            if offset >= 0 and offset + size <= len(data):
                found.setdefault(
                    (device.id, region.index),
                    Comparison(
                        capture.channel,
                        capture.path,
                        offset,
                        data[offset : offset + size],
                        saved[:size],
                    ),
                )
    return found, findings


def _recorded(regions: tuple[object, ...], wanted: ManifestRegion) -> bytes | None:
    for region in regions:
        if getattr(region, "index", None) == wanted.index:
            data = getattr(region, "data", b"")
            return data if isinstance(data, bytes) else None
    return None


def _incomplete(capture: Capture, why: str) -> Finding:
    return zone_finding(
        FindingKind.CAPTURE_INCOMPLETE,
        Verdict.ERROR,
        f"capture incomplete ({shown(capture.channel)}, memory for comparison): {shown(why)}",
        file=capture.path,
    )


def memory_findings(case: Case) -> list[Finding]:
    """Say what the comparison showed: one line for all that is equal, one for each difference."""
    memory: Mapping[tuple[int, int], Comparison] = case.memory
    findings = []
    by_channel: Counter[str] = Counter(one.channel for one in memory.values() if one.equal)
    regions = sum(len(device.regions) for device in case.manifest.devices)
    for channel, count in sorted(by_channel.items()):
        size = sum(len(o.memory) for o in memory.values() if o.equal and o.channel == channel)
        findings.append(
            zone_finding(
                FindingKind.MEMORY_EQUAL,
                Verdict.PASS,
                f"{count} regions, {size} bytes, equal the memory that {shown(channel)} read at "
                f"their registered addresses; {regions - len(memory)} cannot be compared: "
                "made or located in the panic, or registers of a device",
            )
        )
    for device in case.manifest.devices:
        for region in device.regions:
            comparison = memory.get((device.id, region.index))
            if comparison is not None and not comparison.equal:
                findings.append(_difference(case, device, region, comparison))
    return findings


def _difference(
    case: Case, device: ManifestDevice, region: ManifestRegion, found: Comparison
) -> Finding:
    difference = first_difference(found.memory, found.recorded)
    assert difference is not None
    planted = planted_bytes(case.manifest.nonce, device, region, len(found.recorded))
    verdict = Verdict.PASS
    if planted is None and is_static(case.cycle.policy, device):
        verdict, why = Verdict.FAIL, "policy calls it static, so it was saved wrong"
    elif planted is None:
        why = "written after the dump, or saved wrong: that cannot be told"
    elif found.recorded == planted:
        why = "the record holds what was planted, so the memory changed after the dump"
    elif found.memory == planted:
        verdict, why = Verdict.FAIL, "the memory holds what was planted, so it was saved wrong"
    else:
        verdict, why = Verdict.FAIL, "neither holds what was planted"
    name, label = shown(device.name), shown(region.name)
    return Finding(
        subject=Subject.DEVICE,
        kind=FindingKind.MEMORY_DIFFERS,
        verdict=verdict,
        message=f"{name}: region {label} differs from the memory that {shown(found.channel)} read "
        f"in {difference.wrong_bytes} bytes, first at {difference.offset:#x}; {why}",
        device=name,
        driver=shown(device.driver),
        evidence=Evidence(
            file=found.file,
            offset=found.file_offset + difference.offset,
            region=label,
            region_offset=difference.offset,
            wrong_bytes=difference.wrong_bytes,
            expected=difference.expected,
            got=difference.got,
        ),
    )
