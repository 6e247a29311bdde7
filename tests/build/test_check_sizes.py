"""Real objects, by the real compiler: a byte more is found, in which object and section."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farm.build.check import sizes

BEFORE = "int d = 1; int z[4]; int f(int a) { return a; }"


def kernel(folder: Path, source: str, name: str = "fs/ram.o") -> sizes.Sizes:
    for made in (name, "vmlinux"):
        path = folder / made
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["aarch64-linux-gnu-gcc", "-O2", "-g", "-c", "-x", "c", "-", "-o", str(path)],
            input=source.encode(),
            check=True,
        )
    return sizes.read(folder)


def test_the_same_source_has_not_grown(tmp_path: Path) -> None:
    before = kernel(tmp_path / "a", BEFORE)
    assert before["fs/ram.o"][".data"] == 4
    assert before["fs/ram.o"][".bss"] == 16
    assert ".debug_info" not in before["fs/ram.o"]
    assert sizes.growth(before, kernel(tmp_path / "b", BEFORE)) == []


@pytest.mark.parametrize(
    ("source", "section", "more"),
    [
        (BEFORE.replace("z[4]", "z[5]"), ".bss", "+4"),
        (BEFORE.replace("d = 1", "d = 1, e = 2"), ".data", "+4"),
        (BEFORE.replace("return a;", "return a * a + d;"), ".text", "+"),
    ],
)
def test_what_has_grown_is_named(tmp_path: Path, source: str, section: str, more: str) -> None:
    before = kernel(tmp_path / "a", BEFORE)
    found = sizes.growth(before, kernel(tmp_path / "b", source))
    assert any(line.startswith(f"fs/ram.o {section}: ") and more in line for line in found)
    assert any(line.startswith(f"vmlinux {section}: ") for line in found)


def test_what_has_shrunk_is_no_fault(tmp_path: Path) -> None:
    before = kernel(tmp_path / "a", BEFORE)
    now = kernel(tmp_path / "b", BEFORE.replace("z[4]", "z[3]"))
    assert sizes.growth(before, now) == []
    assert sizes.smaller(before, now) == ["fs/ram.o", "vmlinux"]
    assert sizes.smaller(now, before) == []


def test_a_section_that_grows_is_named_even_if_another_shrinks(tmp_path: Path) -> None:
    before = kernel(tmp_path / "a", BEFORE)
    source = BEFORE.replace("z[4]", "z[1]").replace("d = 1", "d = 1, e = 2")
    found = sizes.growth(before, kernel(tmp_path / "b", source))
    assert [line for line in found if ".bss" in line] == []
    assert any(line.startswith("fs/ram.o .data: 4 -> 8 bytes") for line in found)


def test_an_object_that_is_new_or_gone_is_named(tmp_path: Path) -> None:
    before = kernel(tmp_path / "a", BEFORE)
    now = kernel(tmp_path / "b", BEFORE, "fs/panicdump.o")
    found = sizes.growth(before, now)
    assert any(line.startswith("fs/panicdump.o: ") and "only with" in line for line in found)
    assert any(line.startswith("fs/ram.o: ") and "only without" in line for line in found)


def test_read_only_data_is_compared_by_object_and_not_in_vmlinux(tmp_path: Path) -> None:
    """kallsyms is in the one of vmlinux, and every line number in the name of a symbol with it."""
    before = kernel(tmp_path / "a", 'const char name[] = "init_410_987";')
    now = kernel(tmp_path / "b", 'const char name[] = "init_410_1070";')
    assert sizes.growth(before, now) == ["fs/ram.o .rodata: 13 -> 14 bytes (+1)"]


def test_what_a_build_with_the_options_on_has_left_is_not_counted(tmp_path: Path) -> None:
    before = kernel(tmp_path, BEFORE)
    kernel(tmp_path, BEFORE, "samples/panicdump/panicdump_sample.mod.o")
    kernel(tmp_path, BEFORE, "scripts/mod/empty.o")
    sizes.forget_others(tmp_path, before)
    assert sizes.growth(before, sizes.read(tmp_path)) == []
    assert (tmp_path / "fs" / "ram.o").is_file()
    assert (tmp_path / "scripts" / "mod" / "empty.o").is_file()
