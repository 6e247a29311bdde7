"""Records, zones and dumps that several tests of the formats need."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

from hypothesis import strategies as st

from farm.formats.encode import NewContentsEntry, NewRecord, NewRegion, encode_contents
from farm.formats.pattern import expected_bytes

NONCE = 0x0123_4567_89AB_CDEF
_PAGE = 4096
BOOT_ID = uuid.UUID("0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff")


def device_record() -> NewRecord:
    """One region of each kind, a strided register file, an empty buffer and a cut one."""
    return NewRecord(
        driver="panicdump-sample",
        device="panicdump-sample.3",
        boot_id=BOOT_ID,
        sequence=7,
        device_id=4,
        index=2,
        time_ns=1_700_000_000_123_456_789,
        uptime_ns=12_345_678_901,
        error=-14,
        priority=-5,
        regions=(
            NewRegion(
                name="buf0",
                data=expected_bytes(NONCE, 3, 0, 100),
                va=0xFFFF_0000_0123_4568,
                pa=0x4123_4568,
            ),
            NewRegion(
                name="reg1",
                data=expected_bytes(NONCE, 3, 1, 64),
                kind=2,
                va=0xFFFF_8000_0800_0000,
                pa=0x0900_0000,
                width_bytes=4,
                stride_bytes=4,
            ),
            NewRegion(
                name="spread regs",
                data=expected_bytes(NONCE, 3, 2, 8),
                kind=2,
                va=0xFFFF_8000_0801_0000,
                size_bytes=24,
                width_bytes=4,
                stride_bytes=20,
            ),
            NewRegion(
                name="cb3", data=expected_bytes(NONCE, 3, 3, 33), kind=3, size_bytes=100, error=-14
            ),
            NewRegion(name="empty", data=b"", va=0xFFFF_0000_0200_0000, pa=0x4200_0000),
            NewRegion(
                name="cut",
                data=expected_bytes(NONCE, 3, 5, 17),
                va=0xFFFF_0000_0300_0001,
                size_bytes=4096,
                flags=1,
            ),
        ),
    )


def contents_record() -> NewRecord:
    entries = [
        NewContentsEntry(
            device_id=1,
            driver="panicdump-sample",
            device="panicdump-sample.0",
            index=1,
            needed_bytes=600,
            saved_bytes=584,
        ),
        NewContentsEntry(
            device_id=4, driver="uart", device="9000000.serial", outcome=2, needed_bytes=1 << 20
        ),
        NewContentsEntry(device_id=5, driver="gpio", device="gpio0", outcome=4, index=2, error=-5),
    ]
    data = encode_contents(
        entries, nr_devices=4, on_overflow=1, capacity_bytes=65536, used_bytes=2048
    )
    region = NewRegion(name="contents", data=data, kind=3)
    return NewRecord(
        driver="panicdump",
        device="contents",
        kind=1,
        boot_id=BOOT_ID,
        sequence=7,
        device_id=0,
        index=0,
        regions=(region,),
    )


names = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"\x01"))
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def new_regions(draw: st.DrawFn) -> NewRegion:
    kind = draw(st.sampled_from((1, 2, 3, 4)))
    data = draw(st.binary(max_size=200))
    width = draw(st.sampled_from((1, 2, 4, 8))) if kind == 2 else 0
    return NewRegion(
        name=draw(names),
        data=data,
        kind=kind,
        va=0 if kind > 2 else draw(u64),
        pa=draw(st.none() | st.integers(0, 2**64 - 2)),
        size_bytes=len(data) + draw(st.integers(0, 1000)),
        width_bytes=width,
        stride_bytes=width + draw(st.integers(0, 100)) if kind == 2 else 0,
        note_type=draw(st.integers(0, 2**32 - 1)) if kind == 4 else 0,
        flags=draw(st.integers(0, 7)),
        error=draw(i32),
    )


@st.composite
def new_records(draw: st.DrawFn) -> NewRecord:
    return NewRecord(
        driver=draw(names),
        device=draw(names),
        regions=tuple(draw(st.lists(new_regions(), max_size=5))),
        flags=draw(st.integers(0, 7)),
        boot_id=draw(st.uuids()),
        sequence=draw(u64),
        device_id=draw(st.integers(0, 2**32 - 1)),
        index=draw(st.integers(0, 2**32 - 1)),
        time_ns=draw(u64),
        uptime_ns=draw(u64),
        error=draw(i32),
        priority=draw(i32),
    )


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def kdump(numbers: Sequence[int], flags: int = 0, packed: bytes = b"\xa5" * _PAGE) -> bytes:
    """A kdump file of these pages, which all have the same content."""
    last = numbers[-1] + 1
    bits = bytearray(-(-last // 8 // _PAGE) * _PAGE)
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)
    head = b"KDUMP   " + struct.pack("<i", 6) + bytes(416)
    head += struct.pack("<2i2I", _PAGE, 1, 2 * len(bits) // _PAGE, last)
    sub = bytes(96) + struct.pack("<Q", last)
    data_at = 2 * _PAGE + 2 * len(bits) + 24 * len(numbers)
    descriptors = struct.pack("<Q2IQ", data_at, len(packed), flags, 0) * len(numbers)
    return b"".join(
        (head.ljust(_PAGE, b"\0"), sub.ljust(_PAGE, b"\0"), 2 * bits, descriptors, packed)
    )
