"""ramoops regions inside a dump of memory: told by a device tree in it, or by their zones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.decode.landmarks import Landmarks, Place
from farm.decode.memory import Memory
from farm.errors import FormatError
from farm.formats.devicetree import MAX_BLOB_BYTES, RamoopsNode, ramoops_nodes
from farm.formats.infer import has_header_parity, infer_sizes
from farm.formats.ramoops import ZONE_HEADER, RamoopsSizes
from farm.formats.region import RamoopsRegion, decode_region

__all__ = ["FoundRegion", "find_regions"]

# Zones further apart than that are not of one region.
_MAX_ZONE_BYTES = 16 << 20
_MAX_REGION_BYTES = 64 << 20
_MAX_REGIONS = 8
_MAX_TREES = 4


@dataclass(frozen=True)
class FoundRegion:
    """A region at a physical address; `how` tells how its layout is known."""

    paddr: int
    data: bytes
    region: RamoopsRegion
    how: str


def find_regions(
    memory: Memory,
    landmarks: Landmarks,
    *,
    sizes: RamoopsSizes | None = None,
    nodes: Sequence[RamoopsNode] = (),
) -> list[FoundRegion]:
    """Find the regions: where `nodes` or a device tree in the dump say, else where zones are.

    `sizes`, if given, are those of every region that is found by its zones.
    """
    told = [*nodes] or _nodes_in(memory, landmarks)
    found = []
    for node in told[:_MAX_REGIONS]:
        size = node.sizes.mem_size_bytes
        data = memory.read(node.paddr, size) if size <= _MAX_REGION_BYTES else None
        if data is None:
            continue
        region = decode_region(data, node.sizes)
        if region.written:
            found.append(FoundRegion(node.paddr, data, region, "device tree"))
    if found:
        return found
    for begin, last in _clusters(memory, landmarks)[:_MAX_REGIONS]:
        one = _by_zones(memory, begin, last, sizes)
        if one is not None:
            found.append(one)
    return found


def _nodes_in(memory: Memory, landmarks: Landmarks) -> list[RamoopsNode]:
    """What the device trees in the dump say, each node once."""
    nodes: list[RamoopsNode] = []
    for place in landmarks.devicetrees[:_MAX_TREES]:
        segment = memory.segments[place.number]
        buffer = bytearray(max(0, min(MAX_BLOB_BYTES, segment.size_bytes - place.offset)))
        segment.source.read_into(segment.offset + place.offset, memoryview(buffer))
        size = int.from_bytes(buffer[4:8], "big")
        if size > len(buffer) or b"ramoops" not in buffer[:size]:
            continue
        try:
            nodes += [node for node in ramoops_nodes(bytes(buffer[:size])) if node not in nodes]
        except FormatError:
            continue
    return nodes


def _clusters(memory: Memory, landmarks: Landmarks) -> list[tuple[int, int]]:
    """First and last zone of what can be regions."""
    places = sorted(
        paddr for place in landmarks.zones if (paddr := _paddr(memory, place)) is not None
    )
    clusters: list[tuple[int, int]] = []
    for paddr in places:
        if clusters and paddr - clusters[-1][1] <= _MAX_ZONE_BYTES:
            clusters[-1] = clusters[-1][0], paddr
        else:
            clusters.append((paddr, paddr))
    return clusters


def _paddr(memory: Memory, place: Place) -> int | None:
    base = memory.segments[place.number].paddr
    return None if base is None else base + place.offset


def _by_zones(
    memory: Memory, begin: int, last: int, sizes: RamoopsSizes | None
) -> FoundRegion | None:
    """A region whose end is not known: the last zone is as large as makes the end roundest."""
    if sizes is not None:
        data = memory.read(begin, sizes.mem_size_bytes)
        if data is None:
            return None
        return FoundRegion(begin, data, decode_region(data, sizes), "given sizes")
    head = memory.read(last, ZONE_HEADER.size_bytes) or bytes(ZONE_HEADER.size_bytes)
    used = ZONE_HEADER.unpack(head).number("size")
    best: tuple[tuple[bool, int], bytes] | None = None
    size = 4096
    while size <= _MAX_ZONE_BYTES and last + size - begin <= _MAX_REGION_BYTES:
        zone = memory.read(last, size)
        if zone is None:
            break
        if size > used:
            end = last + size
            # With ECC, the parity of the last header stands at the end of the region.
            rank = (has_header_parity(zone), end & -end)
            if best is None or rank > best[0]:
                best = rank, zone
        size *= 2
    if best is None:
        return None
    data = (memory.read(begin, last - begin) or b"") + best[1]
    try:
        told = infer_sizes(data).sizes
    except FormatError:
        return None
    return FoundRegion(begin, data, decode_region(data, told), "its zones")
