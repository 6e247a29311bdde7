"""Bit flips: what a warm reset does to DRAM whose refresh was interrupted."""

from __future__ import annotations

import bisect
import itertools
import os
import random
import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from farm.errors import UsageError
from farm.virtual.devicetree import RAM_BASE_PADDR, RamoopsArea, Zone, split_blocks


class BitPlace(BaseModel):
    """A bit that was asked for: ``byte`` is a physical address, or an offset into the region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    byte: int = Field(ge=0)
    bit: int = Field(ge=0, le=7)
    in_region: bool = False


class FlipRequest(BaseModel):
    """Which bits to flip on the next warm reset: ``at`` these, and ``bits`` random ones.

    ``region`` is a zone's name, ramoops, or PADDR+LENGTH. ``max_per_block`` bounds the bytes that
    are hit in each ECC block: 128 data bytes with their parity, or a zone's header with its own.
    ``used_only`` leaves out what the zones' headers do not claim, the headers and the parity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int = Field(default=0, ge=0)
    seed: int = Field(default_factory=lambda: secrets.randbits(32))
    region: str = "panicdump"
    max_per_block: int | None = Field(default=None, ge=1)
    used_only: bool = False
    at: tuple[BitPlace, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> FlipRequest:
        if not self.bits and not self.at:
            raise ValueError("a flip needs --bits N or --at BYTE:BIT")
        return self

    def __str__(self) -> str:
        bits = f"{self.bits} bits, seed {self.seed}" if self.bits else f"{len(self.at)} bits"
        return f"flip {bits} in {self.region}"


class FlippedBit(BaseModel):
    """One bit that was flipped: the byte's physical address and the bit's number, 0 the lowest."""

    model_config = ConfigDict(frozen=True)

    paddr: int
    bit: int

    def __str__(self) -> str:
        return f"0x{self.paddr:x}:{self.bit}"


def parse_at(text: str) -> BitPlace:
    """BYTE:BIT, where +BYTE counts from the start of the region; raises UsageError."""
    byte, _, bit = text.partition(":")
    try:
        return BitPlace(byte=int(byte, 0), bit=int(bit, 0), in_region=byte.startswith("+"))
    except ValueError:
        raise UsageError(
            f"--at {text}: not BYTE:BIT, like 0x5fe00010:3, or +0x10:3 into the region"
        ) from None


def _parse_range(text: str) -> range:
    paddr, _, length = text.partition("+")
    try:
        start, size = int(paddr, 0), int(length, 0)
    except ValueError:
        size = 0
    if size <= 0:
        raise UsageError(
            f"--region {text}: not panicdump, ramoops or PADDR+LENGTH, like 0x5fe00000+0x1000"
        )
    return range(start, start + size)


def _is_range(region: str) -> bool:
    return region[:1].isdigit()


def _zones(area: RamoopsArea | None, region: str) -> list[Zone]:
    if area is None:
        raise UsageError(f"--region {region}: the board's device tree has no ramoops node")
    if region == "ramoops":
        return list(area.zones)
    zones = [zone for zone in area.zones if zone.name == region]
    if not zones:
        names = ", ".join(zone.name for zone in area.zones)
        raise UsageError(f"--region {region}: the board has no such zone, only {names}")
    return zones


def _start(area: RamoopsArea | None, region: str) -> int:
    return _parse_range(region).start if _is_range(region) else _zones(area, region)[0].paddr


def _asked(area: RamoopsArea | None, request: FlipRequest) -> list[FlippedBit]:
    found = set()
    for place in request.at:
        base = _start(area, request.region) if place.in_region else 0
        found.add((base + place.byte, place.bit))
    return [FlippedBit(paddr=paddr, bit=bit) for paddr, bit in sorted(found)]


def _blocks(dram: int, area: RamoopsArea | None, request: FlipRequest) -> list[tuple[range, ...]]:
    """What to choose from: address ranges, together where they belong to one ECC block."""
    if _is_range(request.region):
        span = _parse_range(request.region)
        return [(piece,) for piece in split_blocks(span)] if request.max_per_block else [(span,)]
    zones = _zones(area, request.region)
    if not request.used_only and request.max_per_block is None:
        return [(range(zone.paddr, zone.paddr + zone.length_bytes),) for zone in zones]
    blocks: list[tuple[range, ...]] = []
    for zone in zones:
        if request.used_only:
            size = os.pread(dram, 4, zone.paddr + 8 - RAM_BASE_PADDR)
            blocks.extend((data,) for data in zone.data_blocks(int.from_bytes(size, "little")))
        else:
            blocks.extend(zone.ecc_blocks())
    return blocks


def _choose(blocks: list[tuple[range, ...]], request: FlipRequest) -> list[FlippedBit]:
    rng = random.Random(request.seed)
    spans: Sequence[range]
    if request.max_per_block is None:
        spans = list(itertools.chain.from_iterable(blocks))
    else:
        picked: list[int] = []
        for block in blocks:
            addresses = list(itertools.chain.from_iterable(block))
            picked += rng.sample(addresses, min(request.max_per_block, len(addresses)))
        spans = [range(paddr, paddr + 1) for paddr in sorted(picked)]
    ends = list(itertools.accumulate(len(span) * 8 for span in spans))
    room = ends[-1] if ends else 0
    if request.bits > room:
        raise UsageError(f"--bits {request.bits}: {request.region} has room for {room} bits")
    chosen: list[FlippedBit] = []
    for number in sorted(rng.sample(range(room), request.bits)):
        index = bisect.bisect_right(ends, number)
        offset = number - (ends[index - 1] if index else 0)
        chosen.append(FlippedBit(paddr=spans[index][offset // 8], bit=offset % 8))
    return chosen


def _check_in_dram(addresses: Sequence[int], size_bytes: int) -> None:
    for paddr in addresses:
        if not 0 <= paddr - RAM_BASE_PADDR < size_bytes:
            raise UsageError(f"address 0x{paddr:x} is not in the board's DRAM")


def check_flip(area: RamoopsArea | None, request: FlipRequest, memory_size_bytes: int) -> None:
    """Raise UsageError for a request that no content of the DRAM could fulfil."""
    _check_in_dram([flipped.paddr for flipped in _asked(area, request)], memory_size_bytes)
    if not request.bits:
        return
    if _is_range(request.region):
        span = _parse_range(request.region)
        _check_in_dram([span[0], span[-1]], memory_size_bytes)
    else:
        _zones(area, request.region)


def apply_flip(dram_file: Path, area: RamoopsArea | None, request: FlipRequest) -> list[FlippedBit]:
    """Flip the bits in the DRAM's file and say which; raises UsageError, and then flips nothing."""
    dram = os.open(dram_file, os.O_RDWR)
    try:
        chosen = _asked(area, request)
        if request.bits:
            asked = set(chosen)
            drawn = _choose(_blocks(dram, area, request), request)
            chosen += [flipped for flipped in drawn if flipped not in asked]
        _check_in_dram([flipped.paddr for flipped in chosen], os.fstat(dram).st_size)
        for flipped in chosen:
            offset = flipped.paddr - RAM_BASE_PADDR
            old = os.pread(dram, 1, offset)[0]
            os.pwrite(dram, bytes([old ^ (1 << flipped.bit)]), offset)
    finally:
        os.close(dram)
    return chosen
