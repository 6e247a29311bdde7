"""Storage of pstore/zone, such as a partition of pstore/blk.

Source: fs/pstore/zone.c of Linux 6.12 (psz_alloc_zones, psz_kmsg_read, psz_record_read);
Documentation/admin-guide/panicdump.rst, section 7, for the panicdump zone.
Left out: zones for ftrace, whose size follows from the number of processors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.formats.dmesg import inflate
from farm.formats.layout import StructTable
from farm.formats.ramoops import SIGNATURE, Frame, walk_frames

__all__ = ["PstoreZoneStorage", "StoredFile", "decode_storage", "is_storage"]

BACKEND = "pstore_blk"
_ALIGN = 512
_KINDS = {0: "dmesg", 2: "console", 3: "ftrace", 7: "pmsg", 9: "panicdump"}
_REASONS = {1: "Panic", 2: "Oops", 3: "Emergency", 4: "Shutdown"}
KMSG_MAGIC = 0x4DFC_3AE5

ZONE = StructTable(
    "pstore/zone header", 12, ((0, "I", "sig"), (4, "I", "datalen"), (8, "I", "start"))
)
KMSG = StructTable(
    "pstore/zone kmsg header",
    40,
    (
        (0, "I", "magic"),
        (8, "q", "time_s"),
        (16, "q", "time_ns"),
        (24, "B", "compressed"),
        (28, "I", "counter"),
        (32, "I", "reason"),
    ),
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that pstorefs shows of a zone at this offset."""

    name: str
    offset: int
    data: bytes
    time_s: int
    still_compressed: bool = False


@dataclass(frozen=True, slots=True)
class PstoreZoneStorage:
    """The zones' (kind, offset), the files of theirs, and the frames of the panicdump zone."""

    zones: tuple[tuple[str, int], ...]
    files: tuple[StoredFile, ...]
    frames: tuple[Frame, ...]


def _zones(data: bytes) -> list[tuple[int, int]]:
    """(type, offset) of each place that can be a zone's."""
    words = np.frombuffer(data[: len(data) // _ALIGN * _ALIGN], dtype="<u4")[:: _ALIGN // 4]
    kinds = words ^ np.uint32(SIGNATURE)
    return [
        (int(kinds[index]), int(index) * _ALIGN)
        for index in np.flatnonzero(kinds <= 9)
        if int(kinds[index]) in _KINDS
    ]


def is_storage(data: bytes) -> bool:
    """Whether this is storage of pstore/zone and no region of ramoops, which shares a signature."""
    for kind, at in _zones(data):
        if kind:
            return True
        head = data[at + ZONE.size_bytes : at + ZONE.size_bytes + 4]
        if int.from_bytes(head, "little") == KMSG_MAGIC:
            return True
    return False


def decode_storage(data: bytes) -> PstoreZoneStorage:
    """Decode all zones.  A zone ends where the next one begins."""
    zones = _zones(data)
    files: list[StoredFile] = []
    frames: tuple[Frame, ...] = ()
    kmsg = 0
    for number, (kind, at) in enumerate(zones):
        end = zones[number + 1][1] if number + 1 < len(zones) else len(data)
        values = ZONE.unpack(data[at:end].ljust(ZONE.size_bytes, b"\0"))
        area = data[at + ZONE.size_bytes : end]
        length, start = values.number("datalen"), values.number("start")
        name = f"{_KINDS[kind]}-{BACKEND}"
        if kind == 0:
            if length <= len(area) and (file := _kmsg(area[:length], f"{name}-{kmsg}", at)):
                files.append(file)
            kmsg += 1
        elif kind == 9:
            frames = tuple(walk_frames(area, min(length, len(area)), ZONE.size_bytes))
            files += [
                StoredFile(f"{name}-{frame.ordinal}", at, frame.data, 0)
                for frame in frames
                if frame.ordinal is not None and frame.state.name == "LIVE" and frame.data
            ]
        elif kind in (2, 7) and 0 < length <= len(area) and start <= length:
            content = area[start:length] + area[:start]
            files.append(StoredFile(f"{name}-0", at, content, 0))
    return PstoreZoneStorage(tuple((_KINDS[kind], at) for kind, at in zones), tuple(files), frames)


def _kmsg(content: bytes, name: str, at: int) -> StoredFile | None:
    if len(content) < KMSG.size_bytes:
        return None
    head = KMSG.unpack(content)
    if head.number("magic") != KMSG_MAGIC:
        return None
    body = content[KMSG.size_bytes :]
    time_s = head.number("time_s")
    if head.number("compressed"):
        text, complete, _ = inflate(body)
        if complete:
            return StoredFile(name, at, text, time_s)
        return StoredFile(f"{name}.enc.z", at, body, time_s, True)
    reason = _REASONS.get(head.number("reason"), "Unknown")
    first = f"{reason}: Total {head.number('counter')} times\n".encode()
    return StoredFile(name, at, first + body, time_s)
