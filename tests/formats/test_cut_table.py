"""panicdump's table as it lies in memory; bytes laid out by hand, after the document's section."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest

from farm.errors import FormatError
from farm.formats.cut_table import cut_table, decode_cut_table
from farm.formats.record import RegionKind

BOOT = uuid.UUID("8c1f5f0e-6f0a-4c7e-9d55-0a2f7a9b3c11")
BASE = 0x4000_0000
ENTRIES_AT = 0x3000


def entry(device_id: int, name: bytes, *, generation: int = 0, pa: int = 0x1234) -> bytes:
    raw = struct.pack("<II", device_id, 1)
    raw += struct.pack("<QQQ", 0xFFFF_8000_0000_0000, pa, 4096)
    raw += struct.pack("<II", 1, 0) + struct.pack("<HHI", 0, 0, generation)
    raw += b"panel".ljust(32, b"\0") + b"ae94000.dsi.0".ljust(64, b"\0") + name.ljust(32, b"\0")
    return raw + bytes(16)


def header(count: int) -> bytes:
    raw = b"PANICDUMP-TABLE\0" + struct.pack("<HHHH", 1, 64, 192, 0)
    raw += struct.pack("<II", count, 64) + BOOT.bytes
    return raw + struct.pack("<QQ", 0xFFFF_0000_0000_3000, BASE + ENTRIES_AT)


def memory(count: int, entries: bytes) -> bytearray:
    whole = bytearray(0x8000)
    # The kernel's own code holds the magic, too.
    whole[0x100:0x110] = b"PANICDUMP-TABLE\0"
    whole[0x1040 : 0x1040 + 64] = header(count)
    whole[ENTRIES_AT : ENTRIES_AT + len(entries)] = entries
    return whole


def cut(tmp_path: Path, data: bytes | bytearray) -> object:
    path = tmp_path / "memory.bin"
    path.write_bytes(data)
    with path.open("rb") as file:
        return cut_table(file.fileno(), BASE)


def test_the_table_is_found_by_its_magic(tmp_path: Path) -> None:
    entries = entry(7, b"regs") + entry(0, b"free") + entry(9, b"torn", generation=3)
    found = cut(tmp_path, memory(3, entries))
    assert found is not None
    assert found.paddr == BASE + 0x1040  # type: ignore[attr-defined]
    table = decode_cut_table(found.data)  # type: ignore[attr-defined]
    assert table.boot_id == str(BOOT)
    assert table.torn == 1
    (region,) = table.entries
    assert (region.device_id, region.region_index, region.driver) == (7, 1, "panel")
    assert (region.device, region.region, region.kind) == (
        "ae94000.dsi.0",
        "regs",
        RegionKind.BUFFER,
    )
    assert (region.va, region.pa, region.size_bytes) == (0xFFFF_8000_0000_0000, 0x1234, 4096)


def test_an_unknown_address_is_none(tmp_path: Path) -> None:
    found = cut(tmp_path, memory(1, entry(7, b"x", pa=(1 << 64) - 1)))
    assert decode_cut_table(found.data).entries[0].pa is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [0x1040, 0x1050, 0x1052, 0x1054, 0x107F])
def test_a_damaged_header_is_no_table(tmp_path: Path, at: int) -> None:
    data = memory(1, entry(7, b"x"))
    data[at] ^= 0x40
    assert cut(tmp_path, data) is None


def test_memory_without_one_has_none(tmp_path: Path) -> None:
    assert cut(tmp_path, bytes(4096)) is None


def test_a_cut_off_table_says_where() -> None:
    with pytest.raises(FormatError) as caught:
        decode_cut_table(header(2) + entry(7, b"x"))
    assert caught.value.offset == 24
    with pytest.raises(FormatError):
        decode_cut_table(b"PANICDUMP")
