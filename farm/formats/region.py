"""A whole ramoops region: every zone, and the files that pstorefs shows of them.

Source: ramoops_pstore_read() in fs/pstore/ram.c, persistent_ram_ecc_string() in ram_core.c,
decompress_record() in platform.c, pstore_mkfile() in inode.c of Linux 6.12, which 6.1 does not
differ from in this but for the choice of compression; Documentation/admin-guide/panicdump.rst,
section 7.
Left out: names of functions in function traces, which only the kernel knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from farm.formats import ftrace
from farm.formats.dmesg import inflate, split_dmesg
from farm.formats.layout import Damage
from farm.formats.ramoops import (
    SIGNATURE,
    Frame,
    FrameState,
    RamoopsSizes,
    Zone,
    ZoneKind,
    ZonePlace,
    decode_panicdump_zone,
    decode_zone,
    mended_data,
    of_ftrace,
    place_zones,
    signature_of,
)

__all__ = [
    "PstoreFile",
    "RamoopsRegion",
    "RegionZone",
    "Salvage",
    "decode_region",
    "ecc_notice",
    "pstore_files",
    "salvage",
    "version_of_signature",
]

_TEXT = re.compile(rb"[\t\n\r\x1b\x20-\x7e\x80-\xff]+")
_MIN_TEXT_BYTES = 16


@dataclass(frozen=True, slots=True)
class RegionZone:
    """A zone of the region; frames are those of a panicdump zone.  Damages are from its start."""

    place: ZonePlace
    zone: Zone
    frames: tuple[Frame, ...]
    damages: tuple[Damage, ...]

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.place.kind.value} {self.place.index}"


@dataclass(frozen=True, slots=True)
class RamoopsRegion:
    """The zones in the order in which they lie; `linux_version` is that of a zone for ftrace."""

    sizes: RamoopsSizes
    zones: tuple[RegionZone, ...]
    linux_version: tuple[int, int, int] | None

    @property
    def written(self) -> bool:
        """Whether any zone has its signature, or a frame."""
        return any(one.zone.written or one.frames for one in self.zones)


@dataclass(frozen=True, slots=True)
class PstoreFile:
    """A file of pstorefs: its name and all bytes that reading it gives.

    `notice_bytes` of these, at the end, are what ramoops says of ECC.  `still_compressed` is True
    where the kernel could not unpack the record either, and `hidden` where it shows no file because
    it stops at an empty record before this one.
    """

    name: str
    zone: RegionZone
    data: bytes
    notice_bytes: int
    time_s: int
    time_us: int
    still_compressed: bool = False
    hidden: bool = False
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Salvage:
    """What is left in a zone that the kernel takes for empty: `data`, and how its end was told."""

    zone: RegionZone
    data: bytes
    how: str


def version_of_signature(signature: int) -> tuple[int, int, int] | None:
    """The kernel's version that is in the signature of an ftrace zone; None if there is none."""
    if not of_ftrace(np.asarray(signature, dtype=np.uint32)):
        return None
    code = signature ^ SIGNATURE
    return code >> 16, code >> 8 & 0xFF, code & 0xFF


def decode_region(data: bytes, sizes: RamoopsSizes) -> RamoopsRegion:
    """Decode all zones of a region with these sizes; `data` begins where the region does.

    Bytes that are missing at the end count as zeros.  Raises UsageError when ramoops would refuse
    the sizes.
    """
    data = bytes(data).ljust(sizes.mem_size_bytes, b"\0")
    zones = []
    version = None
    for place in place_zones(sizes):
        piece = data[place.offset : place.offset + place.size_bytes]
        if place.kind is ZoneKind.PANICDUMP:
            panicdump = decode_panicdump_zone(piece, sizes.ecc_size_bytes)
            zones.append(RegionZone(place, panicdump.zone, panicdump.frames, panicdump.damages))
            continue
        signature = signature_of(place.kind)
        zone = decode_zone(piece, sizes.ecc_size_bytes, signature)
        if place.kind is ZoneKind.FTRACE and (found := version_of_signature(zone.signature)):
            version = found
            zone = decode_zone(piece, sizes.ecc_size_bytes, zone.signature)
        zones.append(RegionZone(place, zone, (), zone.damages))
    return RamoopsRegion(sizes, tuple(zones), version)


def ecc_notice(zone: Zone, ecc_size_bytes: int) -> bytes:
    """What ramoops puts behind each file of a zone; nothing without ECC."""
    return _notice(ecc_size_bytes, zone.corrected_symbols, len(zone.bad_blocks))


def _notice(ecc_size_bytes: int, corrected: int, bad_blocks: int) -> bytes:
    if not ecc_size_bytes:
        return b""
    if corrected or bad_blocks:
        text = f"\nECC: {corrected} Corrected bytes, {bad_blocks} unrecoverable blocks\n"
        return text.encode()
    return b"\nECC: No errors detected\n"


def pstore_files(
    region: RamoopsRegion, name_of: Callable[[int, bool], str] | None = None
) -> tuple[PstoreFile, ...]:
    """The files that a kernel with this region shows after boot, in the order in which it reads.

    `name_of` names functions in traces, as in `ftrace.render`.  The order is that of dmesg zones,
    panicdump, console, pmsg, ftrace.  A record of no bytes ends the kernel's reading: what would
    come behind it is marked as hidden.
    """
    files = []
    hidden = False
    for file, size in _read_all(region, name_of):
        if not size:
            hidden = True
            continue
        files.append(file if not hidden else _hide(file))
    return tuple(files)


def _hide(file: PstoreFile) -> PstoreFile:
    return PstoreFile(
        file.name,
        file.zone,
        file.data,
        file.notice_bytes,
        file.time_s,
        file.time_us,
        file.still_compressed,
        True,
        file.frame,
    )


def _read_all(
    region: RamoopsRegion, name_of: Callable[[int, bool], str] | None
) -> Iterator[tuple[PstoreFile, int]]:
    """The files, with the size of their record before it is unpacked."""
    by_kind = {kind: [one for one in region.zones if one.place.kind is kind] for kind in ZoneKind}
    ecc = region.sizes.ecc_size_bytes
    dmesg = by_kind[ZoneKind.DMESG]
    for one in dmesg:
        if one.zone.contents:
            # What the kernel allows for unpacked text follows from its first zone.
            yield from _dmesg_file(one, ecc, 3 * dmesg[0].zone.layout.data_bytes)
    for one in by_kind[ZoneKind.PANICDUMP]:
        notice = ecc_notice(one.zone, ecc)
        for frame in one.frames:
            if frame.ordinal is None or frame.state is FrameState.ERASED or not frame.data:
                continue
            name = f"panicdump-ramoops-{frame.ordinal}"
            data = frame.data + notice
            yield PstoreFile(name, one, data, len(notice), 0, 0, frame=frame), len(frame.data)
    for kind in (ZoneKind.CONSOLE, ZoneKind.PMSG):
        for one in by_kind[kind]:
            if one.zone.contents:
                notice = ecc_notice(one.zone, ecc)
                data = one.zone.contents + notice
                name = f"{kind.value}-ramoops-0"
                yield PstoreFile(name, one, data, len(notice), 0, 0), len(one.zone.contents)
    yield from _ftrace_file(by_kind[ZoneKind.FTRACE], ecc, name_of)


def _dmesg_file(
    one: RegionZone, ecc_size_bytes: int, limit_bytes: int
) -> Iterator[tuple[PstoreFile, int]]:
    parts = split_dmesg(one.zone.contents or b"")
    if parts is None:
        return
    time_s, time_us, compressed, body = parts
    notice = ecc_notice(one.zone, ecc_size_bytes)
    text, still = body, compressed
    if compressed:
        unpacked, complete, _ = inflate(body, limit_bytes)
        if complete:
            text, still = unpacked, False
    name = f"dmesg-ramoops-{one.place.index}{'.enc.z' if still else ''}"
    yield PstoreFile(name, one, text + notice, len(notice), time_s, time_us, still), len(body)


def _ftrace_file(
    zones: list[RegionZone], ecc_size_bytes: int, name_of: Callable[[int, bool], str] | None
) -> Iterator[tuple[PstoreFile, int]]:
    full = [one for one in zones if one.zone.contents]
    if not full:
        return
    if len(zones) == 1:
        log = full[0].zone.contents or b""
    else:
        log = ftrace.combine([one.zone.contents or b"" for one in full])
    corrected = sum(one.zone.corrected_symbols for one in full)
    notice = _notice(ecc_size_bytes, corrected, sum(len(one.zone.bad_blocks) for one in full))
    # The kernel counts the notice in when it looks for where the first whole record begins.
    skip = (len(log) + len(notice)) % ftrace.RECORD_BYTES
    text = ftrace.render(ftrace.decode_trace(log + notice, skip=skip), name_of)
    yield PstoreFile("ftrace-ramoops-0", full[0], text, 0, 0, 0), len(log)


def salvage(data: bytes, region: RamoopsRegion) -> tuple[Salvage, ...]:
    """What zones hold that the kernel takes for empty, or whose header is lost.

    `data` is that of the region.  A dmesg zone is known by its line of time, a console zone by its
    text; where in a ring the oldest byte is, only the lost header knew.  Frames of a panicdump zone
    are found by `decode_region` already.
    """
    data = bytes(data).ljust(region.sizes.mem_size_bytes, b"\0")
    found = []
    for one in region.zones:
        kind = one.place.kind
        if one.zone.contents or kind in (ZoneKind.PANICDUMP, ZoneKind.FTRACE):
            continue
        if one.zone.valid and kind is not ZoneKind.DMESG:
            # Emptied at boot, as these always are.
            continue
        piece = data[one.place.offset : one.place.offset + one.place.size_bytes]
        if not piece.strip(b"\0"):
            continue
        salvaged = _salvage(one, mended_data(piece, region.sizes.ecc_size_bytes))
        if salvaged is not None:
            found.append(salvaged)
    return tuple(found)


def _salvage(one: RegionZone, area: bytes) -> Salvage | None:
    if one.place.kind is ZoneKind.DMESG:
        parts = split_dmesg(area)
        if parts is None:
            return None
        _, _, compressed, body = parts
        why = "the header says empty" if one.zone.valid else "the header is lost"
        if compressed:
            text, complete, _ = inflate(body)
            how = "unpacked to its end" if complete else "unpacked as far as it is undamaged"
            return Salvage(one, text, f"{why}; {how}")
        match = _TEXT.match(body)
        text = match[0] if match else b""
        return Salvage(one, text, f"{why}; to the first byte that is no text")
    area = area.rstrip(b"\0\xff")
    match = _TEXT.match(area)
    if match is None or len(match[0]) < _MIN_TEXT_BYTES:
        return None
    return Salvage(one, area, "the header is lost; in the order in which it lies in the ring")
