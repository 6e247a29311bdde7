from __future__ import annotations

from pathlib import Path

import fdt
import pytest

from farm.errors import UsageError
from farm.virtual.devicetree import Zone, prepare, read_ramoops
from farm.virtual.options import BoardOptions

BASE = 0x5FE0_0000
SIZE = 0x20_0000


def tree(**ramoops: int) -> fdt.FDT:
    made = fdt.FDT()
    made.header.version = 17
    made.add_item(fdt.PropWords("reg", 0, 0x4000_0000, 0, 0x2000_0000), "/memory@40000000")
    for number in range(2):
        made.add_item(fdt.PropWords("reg", number), f"/cpus/cpu@{number}")
    made.add_item(fdt.PropStrings("bootargs", "console=ttyAMA0"), "/chosen")
    if ramoops:
        node = f"/reserved-memory/ramoops@{BASE:x}"
        made.add_item(fdt.PropStrings("compatible", "ramoops"), node)
        made.add_item(fdt.PropWords("reg", 0, BASE, 0, SIZE), node)
        for name, value in ramoops.items():
            made.add_item(fdt.PropWords(name.replace("_", "-"), value), node)
    return made


def options(folder: Path, made: fdt.FDT, **more: object) -> BoardOptions:
    dtb = folder / "board.dtb"
    dtb.write_bytes(made.to_dtb(version=17))
    values = {"name": "b", "kernel": dtb, "initrd": dtb, "dtb": dtb} | more
    return BoardOptions.model_validate(values)


def test_the_zones_are_where_the_kernel_puts_them(tmp_path: Path) -> None:
    made = tree(
        record_size=0x20000, panicdump_size=0x80000, console_size=0x20000, pmsg_size=0x20000
    )
    area = read_ramoops(options(tmp_path, made).dtb)
    assert area is not None
    assert (area.paddr, area.length_bytes) == (BASE, SIZE)
    found = [(zone.name, zone.paddr - BASE, zone.length_bytes) for zone in area.zones]
    assert found[:10] == [(f"dmesg-{n}", n * 0x20000, 0x20000) for n in range(10)]
    assert found[10:] == [
        ("panicdump", 0x140000, 0x80000),
        ("console", 0x1C0000, 0x20000),
        ("pmsg", 0x1E0000, 0x20000),
    ]


def test_sizes_are_rounded_down_to_powers_of_two(tmp_path: Path) -> None:
    area = read_ramoops(options(tmp_path, tree(panicdump_size=0x7FFFF)).dtb)
    assert area is not None
    assert [zone.length_bytes for zone in area.zones] == [0x40000]


def test_ecc_layout_is_that_of_persistent_ram() -> None:
    """Figures measured on a kernel: 4096 bytes with 16 parity bytes."""
    zone = Zone("dmesg-0", 0x1000, 4096, 16)
    assert zone.data_size_bytes == 3604
    blocks = zone.ecc_blocks()
    assert len(blocks) == 1 + 29
    assert blocks[0] == (range(0x1000, 0x100C), range(0x1000 + 0xFF0, 0x2000))
    assert blocks[1] == (range(0x100C, 0x108C), range(0x1000 + 0xE20, 0x1000 + 0xE30))
    assert blocks[-1][0].stop == 0x1000 + 0xE20
    covered = sorted(address for block in blocks for span in block for address in span)
    assert covered == list(range(0x1000, 0x2000))


def test_a_tree_without_ramoops_has_no_area(tmp_path: Path) -> None:
    assert read_ramoops(options(tmp_path, tree()).dtb) is None


def test_each_boot_gets_other_seeds_and_the_options(tmp_path: Path) -> None:
    asked = options(
        tmp_path, tree(ecc_size=0), ecc_size_bytes=16, append="quiet", memory_mib=768, cpus=1
    )
    first, second = (fdt.parse_dtb(prepare(asked)) for _ in range(2))
    for seed in ("rng-seed", "kaslr-seed"):
        ours, theirs = (list(made.get_property(seed, "/chosen")) for made in (first, second))
        assert ours != theirs
    assert first.get_property("bootargs", "/chosen").value == "console=ttyAMA0 quiet"
    assert list(first.get_property("reg", "/memory@40000000")) == [0, 0x4000_0000, 0, 768 << 20]
    assert list(first.get_property("ecc-size", f"/reserved-memory/ramoops@{BASE:x}")) == [16]
    assert not first.exist_node("/cpus/cpu@1")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"memory_mib": 256}, "behind the DRAM"),
        ({"cpus": 3}, "describes 2 processors"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, more: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(options(tmp_path, tree(ecc_size=0), **more))


def test_garbage_is_no_tree(tmp_path: Path) -> None:
    asked = options(tmp_path, tree())
    asked.dtb.write_bytes(b"not a tree")
    with pytest.raises(UsageError, match="not a device tree blob"):
        prepare(asked)
