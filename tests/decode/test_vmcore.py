"""A vmcore is what its dump was, whatever that was in pieces of."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import pytest
from lzallright import LZOCompressor

from farm.decode.kernel import Kernel
from farm.decode.memory import Memory, open_memory
from farm.decode.vmcore import write_vmcore
from farm.errors import FarmError
from tests.formats.format_samples import kdump

PAGE = 4096


def pages_of(memory: Memory, last: int) -> list[bytes | None]:
    return [memory.read(number * PAGE, PAGE) for number in range(last)]


def dump_of(tmp_path: Path, runs: list[tuple[int, int]]) -> Memory:
    """A folder of files of (first page, number of pages), filled at random."""
    rng = random.Random(8)
    folder = tmp_path / "dump"
    folder.mkdir()
    for first, count in runs:
        (folder / f"ram-{first * PAGE:#x}").write_bytes(rng.randbytes(count * PAGE))
    return open_memory([folder])


RUNS = [(1, 1), (2, 3), (6, 1), (9, 2), (12, 1), (64, 1), (70, 2), (73, 1)]


@pytest.mark.parametrize("most", [1, 3, 5, 20])
def test_more_pieces_than_an_elf_file_counts(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.decode.vmcore._MAX_LOADS", most)
    memory = dump_of(tmp_path, RUNS)
    out = tmp_path / "vmcore"
    write_vmcore(memory, Kernel(), out, [], then=[(70 * PAGE + 8, b"put"), (9 * PAGE, b"too")])
    again = open_memory([out])
    assert len(again.segments) == min(most, len(RUNS))
    for number, (before, after) in enumerate(
        zip(pages_of(memory, 80), pages_of(again, 80), strict=True)
    ):
        if number == 70:
            assert before is not None
            before = before[:8] + b"put" + before[11:]
        elif number == 9:
            assert before is not None
            before = b"too" + before[3:]
        # What was in no piece is still in none, or in one as zeros.
        assert after == before or (before is None and after == bytes(PAGE))
    if most == 5:
        # The gaps that were closed are the smallest.
        assert again.read(5 * PAGE, PAGE) is not None
        assert again.read(20 * PAGE, PAGE) is None


def test_the_count_that_stands_for_more_is_not_used(tmp_path: Path) -> None:
    """With the notes, 65,534 headers at most: 0xffff says that the number is elsewhere."""
    rng = random.Random(9)
    numbers = [3 * number for number in sorted(rng.sample(range(70_000), 66_000))]
    file = tmp_path / "kdump"
    file.write_bytes(kdump(numbers))
    memory = open_memory([file])
    assert len(memory.segments) == 66_000
    out = tmp_path / "vmcore"
    write_vmcore(memory, Kernel(), out, [])
    assert struct.unpack_from("<H", out.read_bytes()[:64], 56)[0] <= 0xFFFE
    again = open_memory([out])
    for number in rng.sample(numbers, 500):
        assert again.read(number * PAGE, PAGE) == b"\xa5" * PAGE


CONTENT = random.Random(11).randbytes(PAGE // 2) + bytes(PAGE // 2)
PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "zlib": (1, zlib.compress),
    "LZO": (2, lambda data: bytes(LZOCompressor().compress(data))),
    "snappy": (4, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "zstd": (0x20, lambda data: bytes(cramjam.zstd.compress(data))),
}


@pytest.mark.parametrize("name", PACKERS)
def test_pages_packed_by_any_of_makedumpfile(name: str, tmp_path: Path) -> None:
    flags, pack = PACKERS[name]
    file = tmp_path / "kdump"
    packed = pack(CONTENT)
    file.write_bytes(kdump([3, 4, 9], flags, packed))
    memory = open_memory([file])
    assert memory.read(3 * PAGE, 2 * PAGE) == 2 * CONTENT
    assert memory.read(9 * PAGE + 5, 100) == CONTENT[5:105]
    rng = random.Random(12)
    for damaged in (
        packed[: len(packed) // 2],
        pack(CONTENT[1:]),
        pack(CONTENT + b"more"),
        pack(bytes(1 << 20)) if name != "snappy" else b"\xff\xff\xff\xff\x0f" + packed,
        rng.randbytes(200),
    ):
        file.write_bytes(kdump([3], flags, damaged[:PAGE]))
        with pytest.raises(FarmError, match="kdump: page 0x3"):
            open_memory([file]).read(3 * PAGE, PAGE)


def elf(loads: list[tuple[int, int, int, int]], size: int) -> bytes:
    """An ELF core of (offset behind the headers, vaddr, paddr, size)."""
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<2HI3QI6H", 4, 183, 1, 0, 64, 0, 0, 64, 56, len(loads), 0, 0, 0)
    at = 64 + 56 * len(loads)
    head += b"".join(
        struct.pack("<2I6Q", 1, 7, at + offset, vaddr, paddr, size, size, 0)
        for offset, vaddr, paddr, size in loads
    )
    return head + random.Random(10).randbytes(size)


def test_bytes_that_are_mapped_twice_are_memory_once(tmp_path: Path) -> None:
    """As QEMU's dump-guest-memory has them with paging: by all their virtual addresses."""
    file = tmp_path / "elf"
    loads = [
        (PAGE, 0xA000, 5 * PAGE, PAGE),
        (0, 0x100000, 4 * PAGE, PAGE),
        (0, 0x100000, 4 * PAGE, 4 * PAGE),
    ]
    file.write_bytes(elf(loads, 4 * PAGE))
    memory = open_memory([file])
    assert memory.read(4 * PAGE, 4 * PAGE) == file.read_bytes()[-4 * PAGE :]
    assert memory.size_bytes == 4 * PAGE
    for one in memory.segments:
        assert one.vaddr - 0x100000 == (one.paddr or 0) - 4 * PAGE


def test_a_file_is_not_more_memory_than_it_is_long(tmp_path: Path) -> None:
    file = tmp_path / "elf"
    file.write_bytes(elf([(0, 0, number << 30, PAGE) for number in range(100)], PAGE))
    assert open_memory([file]).size_bytes == PAGE


def test_memory_ends_at_the_last_address(tmp_path: Path) -> None:
    file = tmp_path / "elf"
    file.write_bytes(elf([(0, (1 << 64) - 1, (1 << 64) - PAGE, 4 * PAGE)], 4 * PAGE))
    memory = open_memory([file])
    assert memory.size_bytes == PAGE
    write_vmcore(memory, Kernel(), tmp_path / "vmcore", [])


@pytest.mark.parametrize("base", ["-4096", "1e400", "1" + "0" * 30, '"x"', "null", "[" * 100_000])
def test_an_account_that_makes_no_sense_is_named(base: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(PAGE))
    account = tmp_path / "ramdump.json"
    account.write_text(json.dumps({"files": [{"file": "a.bin", "base": 0}]}).replace("0", base, 1))
    with pytest.raises(FarmError, match=r"ramdump\.json is no account|a\.bin: no memory of"):
        open_memory([tmp_path])
