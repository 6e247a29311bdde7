"""Each board's overlay on its tree of the kernel's source, checked with libfdt.

Trees are compiled by cpp and dtc, overlays applied by fdtoverlay: real tools, no kernel build.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from farm.boards.area import covered
from farm.boards.chips import facts_of
from farm.boards.place import faults, memory_of
from farm.boards.tree import parse_tree
from farm.build import devicetree, kernel_trees
from farm.errors import UsageError
from tests.bench.virtual_board import DEVICES
from tests.boards.libfdt import Fdt, Span

BOARDS = tuple(
    path.stem for path in sorted(DEVICES.glob("*.yaml")) if not path.stem.startswith("virtual")
)
WANTED = {
    "apq8016-sbc",
    "apq8096-db820c",
    "sdm845-db845c",
    "qrb5165-rb5",
    "qrb2210-rb1",
    "qrb4210-rb2",
    "qcs6490-rb3gen2",
    "sm8550-hdk",
    "sm8650-hdk",
}


@cache
def linux() -> Path:
    return kernel_trees.unpacked("6.12")


@cache
def blob_of(board: str) -> bytes:
    return kernel_trees.blob_of(linux(), board)


def with_overlay(board: str, source: str | None = None) -> bytes:
    text = source or (DEVICES / f"{board}.dtso").read_text()
    return devicetree.apply_overlay(blob_of(board), devicetree.compile_overlay(text, board), board)


def complaints(board: str, whole: bytes) -> list[str]:
    """What is wrong with the ramoops node of a tree, by libfdt and chips.yaml's numbers."""
    tree = Fdt(whole)
    spans = list(tree.spans("/reserved-memory"))
    found = [
        (node, span)
        for node, span in spans
        if b"ramoops" in (tree.prop(node, "compatible") or b"").split(b"\0")
    ]
    assert len(found) == 1, f"{board}: {len(found)} ramoops nodes"
    node, own = found[0]
    said = [
        f"{own.name} meets {other.name}"
        for where, other in spans
        if where != node and own.meets(other)
    ]
    facts = facts_of(parse_tree(whole, Path(f"{board}.dtb")))
    assert facts is not None
    for one in facts.firmware:
        if own.meets(Span(one.name, *one.at)):
            said.append(f"{own.name} meets {one.name}")
    ram = [Span("RAM", *one) for one in facts.ram]
    if not any(
        one.start <= own.start and own.start + own.size <= one.start + one.size for one in ram
    ):
        said.append(f"{own.name} is outside of RAM")
    sizes = {
        name: tree.number(node, f"{name}-size")
        for name in ("record", "console", "ftrace", "pmsg", "panicdump")
    }
    said += [f"{name} {size:#x}" for name, size in sizes.items() if size & (size - 1)]
    left = own.size - sum(size for name, size in sizes.items() if name != "record")
    if not sizes["panicdump"] or left < sizes["record"] or left % sizes["record"]:
        said.append(f"sizes do not divide evenly: {sizes}, {left:#x} left")
    return said


def test_the_boards_that_are_described_are_all_there() -> None:
    assert set(BOARDS) >= WANTED
    assert all((DEVICES / f"{board}.dtso").is_file() for board in BOARDS)


@pytest.mark.parametrize("board", BOARDS)
def test_ramoops_is_in_ram_on_nothing_else_and_divides_evenly(board: str) -> None:
    whole = with_overlay(board)
    assert complaints(board, whole) == []
    # The farm's own check, by another reader, says the same.
    tree = parse_tree(whole, Path(f"{board}.dtb"))
    (node,) = tree.ramoops
    assert faults(node.area, node.sizes, memory_of(tree, facts_of(tree))) == ()


@pytest.mark.parametrize("board", BOARDS)
def test_a_planted_overlap_is_named_with_both_regions(board: str) -> None:
    tree = parse_tree(with_overlay(board), Path(f"{board}.dtb"))
    memory = memory_of(tree, facts_of(tree))
    other = next(
        one
        for one in tree.reserved
        if one.length_bytes >= 0x100000 and one.end_paddr < 1 << 32 and covered(one, memory.ram)
    )
    (node,) = tree.ramoops
    own = node.area.paddr
    planted = other.end_paddr - 0x1000
    text = (DEVICES / f"{board}.dtso").read_text()
    text = text.replace(f"{own:#x} ", f"{planted:#x} ").replace(f"@{own:x} ", f"@{planted:x} ")
    whole = with_overlay(board, text)
    assert f"ramoops@{planted:x} meets {other.name}" in complaints(board, whole)
    bad = parse_tree(whole, Path(f"{board}.dtb")).ramoops[0]
    found = faults(bad.area, bad.sizes, memory)
    assert any(f"ramoops@{planted:x}" in one and str(other) in one for one in found), found


def test_the_command_names_both_regions_and_ends_with_2(tmp_path: Path) -> None:
    text = (DEVICES / "sdm845-db845c.dtso").read_text()
    file = tmp_path / "bad.dtso"
    file.write_text(text.replace("0xb0000000", "0x97b00000").replace("@b0000000", "@97b00000"))
    words = ["board", "check", "sdm845-db845c", "--overlay", str(file), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    (conflict,) = json.loads(done.stdout)["conflicts"]
    assert "ramoops@97b00000 [0x97b00000, 0x97d00000)" in conflict
    assert "spss@97b00000 [0x97b00000, 0x97c00000)" in conflict


@pytest.mark.parametrize("text", [b"", b"\xd0\x0d\xfe\xed" + bytes(60), b"no tree"])
def test_what_is_no_device_tree_is_named(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "odd.dtb"
    file.write_bytes(text)
    with pytest.raises(UsageError, match=r"odd\.dtb"):
        parse_tree(text, file)
