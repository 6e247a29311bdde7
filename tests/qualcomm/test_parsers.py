"""What boards print and store, read strictly: memory as text, region tables, GPTs, identities."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from farm.errors import FormatError, UsageError
from farm.qualcomm.firehose import parse_peek
from farm.qualcomm.gpt import find_partition
from farm.qualcomm.hexdump import parse_hexdump
from farm.qualcomm.identity import Mode, identify, serial_in_product
from farm.qualcomm.regions import parse_table
from farm.virtual.disk import SECTOR_BYTES, Disk

DUMP = """\
(bootloader) 40000000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................
(bootloader) 40000010: 41 42 43 44                                      ABCD
OKAY [  0.001s]
"""


def test_memory_as_u_boot_prints_it() -> None:
    assert parse_hexdump(DUMP, 0x4000_0000, 20) == bytes(range(16)) + b"ABCD"


def test_the_first_line_may_stand_behind_fastboots_own_words() -> None:
    """As Debian's fastboot 29.0.6 prints an answer of several lines."""
    assert parse_hexdump(" " * 51 + DUMP, 0x4000_0000, 20) == bytes(range(16)) + b"ABCD"


@pytest.mark.parametrize(("address", "length"), [(0x4000_0000, 21), (0x4000_0010, 20)])
def test_memory_that_is_not_all_there_is_an_error(address: int, length: int) -> None:
    with pytest.raises(FormatError):
        parse_hexdump(DUMP, address, length)


def test_words_among_a_peeks_logs_are_no_bytes() -> None:
    logs = ["Using address 40000000", "0x22 0x00 0xff ", "0x0A", "bad 0x11", "INFO: done"]
    assert parse_peek(logs) == bytes.fromhex("2200ff0a")


def test_region_tables_of_both_widths() -> None:
    narrow = struct.pack("<III20s20s", 1, 0x80000000, 0x1000, b"ddr", b"DDR.BIN")
    wide = struct.pack("<QQQ20s20s", 1, 0x1_8000_0000, 0x2000, b"ddr", b"DDR.BIN")
    assert parse_table(narrow, wide=False)[0].end == 0x8000_1000
    assert parse_table(wide, wide=True)[0].base == 0x1_8000_0000
    with pytest.raises(FormatError):
        parse_table(narrow + b"x", wide=False)
    with pytest.raises(FormatError, match="past the end"):
        parse_table(struct.pack("<III20s20s", 1, 0xFFFF_F000, 0x2000, b"", b""), wide=False)


def test_a_partition_is_found_and_a_damaged_table_is_not_believed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.create()

    def read(at: int, count: int) -> bytes:
        return disk.read(at * SECTOR_BYTES, count * SECTOR_BYTES)

    place = find_partition(read, SECTOR_BYTES, "boot_b")
    wanted = disk.partition("boot_b")
    assert wanted is not None
    assert (place.first, place.sectors) == (wanted.first, 16384)
    with pytest.raises(UsageError, match="There are: boot_a, boot_b, misc, userdata"):
        find_partition(read, SECTOR_BYTES, "vendor")
    disk.write(2 * SECTOR_BYTES + 40, b"\xff")
    with pytest.raises(FormatError, match="checksum"):
        find_partition(read, SECTOR_BYTES, "boot_b")
    disk.close()


@pytest.mark.parametrize(
    ("vendor", "product", "triple", "mode"),
    [
        (0x05C6, 0x9008, (0xFF, 0xFF, 0xFF), Mode.EDL),
        (0x05C6, 0x900E, (0xFF, 0xFF, 0x13), Mode.CRASH),
        (0x05C6, 0x901D, (0xFF, 0xFF, 0x10), Mode.CRASH),
        (0x18D1, 0xD00D, (0xFF, 0x42, 0x03), Mode.FASTBOOT),
        (0x05C6, 0x90DB, (0xFF, 0xFF, 0x10), None),
        (0x1D6B, 0x9008, (0xFF, 0xFF, 0xFF), None),
    ],
)
def test_what_a_device_is_follows_from_its_descriptors(
    vendor: int, product: int, triple: tuple[int, int, int], mode: Mode | None
) -> None:
    found = identify(
        vendor=vendor,
        product=product,
        interfaces=[(0, *triple)],
        path="1-2",
        address=3,
        product_text=lambda: "QUSB_BULK_CID:0412_SN:0BADCAFE",
        serial_text=lambda: "0BADCAFE",
    )
    assert (found.mode if found else None) is mode
    assert found is None or found.matches(serial="0badcafe", path="1-2")


def test_a_product_without_a_serial_number_has_none() -> None:
    assert serial_in_product("QHSUSB__BULK") == ""
