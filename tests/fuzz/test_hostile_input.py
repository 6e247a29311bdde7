"""Damaged and made-up input: an answer or an error of ours, in bounded time and memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.formats.encode import encode_frames, encode_record, encode_zone
from farm.formats.ramoops import SIGNATURE
from tests.formats.format_samples import contents_record, device_record, kdump
from tests.fuzz.targets import TARGETS, budget_s

CORPUS = Path(__file__).parent / "corpus"
GOLDEN = Path(__file__).parents[1] / "formats" / "golden"
MIB = 1 << 20

RECORDS = [encode_record(contents_record()), encode_record(device_record(), "raw")]
SEEDS = [
    *RECORDS,
    encode_zone(encode_frames(RECORDS), 8192, 16),
    encode_zone(b"====1.000002-D\nPanic#1 Part1\n", 4096, signature=SIGNATURE),
    (GOLDEN / "table.bin").read_bytes(),
    b"OSRELEASE=6.12.0\nPAGESIZE=4096\nSYMBOL(panicdump_table)=ffff800080000000\n",
]


def corpus() -> list[tuple[str, Path]]:
    return [
        (folder.name, path)
        for folder in sorted(CORPUS.iterdir())
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    ]


@pytest.mark.parametrize(("target", "path"), corpus(), ids=lambda value: str(value).split("/")[-1])
def test_what_once_went_wrong_does_not_again(target: str, path: Path) -> None:
    data = path.read_bytes()
    begin = time.process_time()
    TARGETS[target](data)
    assert time.process_time() - begin < 2 * budget_s(len(data))


@pytest.mark.parametrize("target", sorted(TARGETS))
@given(st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_input_is_answered(target: str, draw: st.DataObject) -> None:
    data = bytearray(draw.draw(st.sampled_from(SEEDS)))
    for _ in range(draw.draw(st.integers(0, 12))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    TARGETS[target](bytes(data[:cut] if draw.draw(st.booleans()) else data))


@pytest.mark.parametrize("target", sorted(TARGETS))
@given(st.binary(max_size=600))
@settings(max_examples=12, deadline=None)
def test_random_input_is_answered(target: str, data: bytes) -> None:
    TARGETS[target](data)


def frames_without_records(size: int) -> bytes:
    return encode_frames([b""] * (size // 16))


def heads_of_tables(size: int) -> bytes:
    """Heads that all claim the same entries, if not the same number of them."""
    heads = size // 256
    room = (size - heads * 64) // 192
    head = struct.Struct("<16s4H2I16s2Q")
    entry = struct.Struct("<2I3Q2I2HI32s64s32s16x")
    at = 0x4000_0000 + heads * 64
    out = b"".join(
        head.pack(b"PANICDUMP-TABLE", 1, 64, 192, 0, room - number % 1000, room, b"", at, at)
        for number in range(heads)
    )
    return out + b"".join(
        entry.pack(number + 1, 0, 0, 0, 16, 1, 0, 0, 0, 0, b"driver", b"device", b"region")
        for number in range(room)
    )


def single_pages(size: int) -> bytes:
    """A kdump file of every other page, all of which are the same 4096 bytes of it."""
    return kdump(range(0, 2 * (size // 25), 2))


def segments_of_the_same_bytes(size: int) -> bytes:
    """An ELF file of segments that all have the whole of it as their memory."""
    count = (size - 64) // 56
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<2HI3QI6H", 4, 183, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    return head + b"".join(
        struct.pack("<2I6Q", 1, 7, 0, 0, number * size, size, size, 0) for number in range(count)
    )


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "noise": lambda size: b"\0" + bytes(range(256)) * (size // 256),
    "noise with ECC": lambda size: b"\2" + bytes(range(256)) * (size // 256),
    "empty frames": lambda size: b"\0" + encode_zone(frames_without_records(size - 4096), size),
    "marks without frames": lambda size: b"\0" + b"PDDF\xff\xff\xff\xff" * (size // 8),
    "signatures": lambda size: SIGNATURE.to_bytes(4, "little") * (size // 4),
    "zones of nothing": lambda size: (SIGNATURE.to_bytes(4, "little") + bytes(508)) * (size // 512),
    "table heads": lambda size: b"PANICDUMP-TABLE\0" * (size // 16),
    "releases": lambda size: (b"OSRELEASE=" + bytes(4086)) * (size // 4096),
    "record magics": lambda size: b"PANICDMP" * (size // 8),
    "heads of tables": heads_of_tables,
    "single pages": single_pages,
    "segments of the same bytes": segments_of_the_same_bytes,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
@pytest.mark.parametrize("target", ["record", "zone", "region", "infer", "storage", "file"])
def test_time_and_memory_grow_with_the_input_only(target: str, kind: str) -> None:
    data = HOSTILE[kind](MIB)
    TARGETS[target](data[:4096])
    begin = time.process_time()
    TARGETS[target](data)
    assert time.process_time() - begin < 2 * budget_s(len(data))
    tracemalloc.start()
    try:
        TARGETS[target](data[: MIB // 4])
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
