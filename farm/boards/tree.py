"""What a board's device tree says of memory, ramoops, console and reboot modes.

Sources: Devicetree Specification 0.4, 2.3 (cells, reg), 3.4 and 3.5 (memory, reserved memory), 5.3
(the memory reservation block); Linux 6.12, drivers/of/of_reserved_mem.c for what a disabled node
means. The blob is read by the library `fdt`, which guesses a property's type: here the bytes count.
Left out: addresses that a bus translates; where the kernel puts reservations without an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fdt

from farm.boards.area import Area
from farm.errors import UsageError

SIZES = ("record-size", "console-size", "ftrace-size", "pmsg-size", "panicdump-size", "ecc-size")
_PROPERTY_HEADER_BYTES = 12
_CELL_BYTES = 4


@dataclass(frozen=True)
class RamoopsNode:
    """A ramoops node: its path in the tree, its memory, its sizes in bytes by property."""

    path: str
    area: Area
    sizes: dict[str, int]


@dataclass(frozen=True)
class BoardTree:
    """A board as its tree describes it.

    ``memory`` has the nodes that say a size; most Qualcomm trees leave that to the bootloader, and
    say only where memory begins, ``memory_base_paddr``, and some not even that. ``reserved`` are
    the reservations with an address, ramoops excepted; ``floating`` the names of those without.
    """

    source: Path
    model: str
    compatible: tuple[str, ...]
    memory: tuple[Area, ...]
    memory_base_paddr: int | None
    reserved: tuple[Area, ...]
    floating: tuple[str, ...]
    ramoops: tuple[RamoopsNode, ...]
    has_reserved_memory: bool
    reserved_cells: tuple[int, int]
    console: str
    console_compatible: tuple[str, ...]
    reboot_modes: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The blob's name, which is the board's: sdm845-db845c."""
        return self.source.stem


def read_tree(path: Path) -> BoardTree:
    """Read a device tree blob; raises UsageError for what is none."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return parse_tree(blob, path)


def parse_tree(blob: bytes, source: Path) -> BoardTree:
    """The board of a blob that came from ``source``; raises UsageError."""
    try:
        tree = fdt.parse_dtb(blob)
        root = tree.get_node("/")
        return _board(tree, root, source)
    except UsageError:
        raise
    except Exception as error:  # the library lets every kind through
        raise UsageError(
            f"{source} is not a device tree blob that can be read: {error}",
            "A DTB is wanted, as `make dtbs` of the kernel or `dtc` writes it.",
        ) from error


def property_bytes(node: Any, name: str) -> bytes | None:
    """The value of a node's property as it is in the blob; None where it has none."""
    found = node.get_property(name)
    if found is None:
        return None
    packed: bytes = found.to_dtb("")[0]
    size = int.from_bytes(packed[4:8], "big")
    return packed[_PROPERTY_HEADER_BYTES : _PROPERTY_HEADER_BYTES + size]


def property_words(node: Any, name: str) -> tuple[str, ...]:
    """The strings of a node's property."""
    raw = property_bytes(node, name) or b""
    return tuple(one.decode("utf-8", "replace") for one in raw.split(b"\0") if one)


def _cells(node: Any, default: tuple[int, int] = (2, 1)) -> tuple[int, int]:
    def count(name: str, otherwise: int) -> int:
        raw = property_bytes(node, name)
        return otherwise if raw is None else int.from_bytes(raw[:_CELL_BYTES], "big")

    return count("#address-cells", default[0]), count("#size-cells", default[1])


def _areas(node: Any, cells: tuple[int, int], name: str) -> Iterator[Area]:
    raw = property_bytes(node, "reg") or b""
    middle, step = cells[0] * _CELL_BYTES, sum(cells) * _CELL_BYTES
    if not step:
        return
    for at in range(0, len(raw) - step + 1, step):
        start = int.from_bytes(raw[at : at + middle], "big")
        yield Area(start, int.from_bytes(raw[at + middle : at + step], "big"), name)


def available(node: Any) -> bool:
    """Whether the kernel makes a device of the node."""
    return property_words(node, "status")[:1] in ((), ("okay",), ("ok",))


def _board(tree: Any, root: Any, source: Path) -> BoardTree:
    cells = _cells(root)
    memory: list[Area] = []
    for node in root.nodes:
        if node.name.split("@")[0] == "memory":
            memory += _areas(node, cells, node.name)
    reserved = [
        Area(one["address"], one["size"], "reservation block")
        for one in getattr(tree, "entries", None) or ()
    ]
    floating: list[str] = []
    ramoops: list[RamoopsNode] = []
    there = tree.exist_node("/reserved-memory")
    reserved_cells = cells
    if there:
        folder = tree.get_node("/reserved-memory")
        reserved_cells = _cells(folder, cells)
        for node in folder.nodes:
            if not available(node):
                continue
            areas = [one for one in _areas(node, reserved_cells, node.name) if one.length_bytes]
            if "ramoops" in property_words(node, "compatible"):
                sizes = {name: _number(node, name) for name in SIZES}
                path = f"/reserved-memory/{node.name}"
                ramoops += [RamoopsNode(path, one, sizes) for one in areas[:1]]
            elif areas:
                reserved += areas
            else:
                floating.append(node.name)
    reserved += _framebuffers(tree)
    console = console_path(tree)
    sized = tuple(one for one in memory if one.length_bytes)
    return BoardTree(
        source=source,
        model=" ".join(property_words(root, "model")) or source.stem,
        compatible=property_words(root, "compatible"),
        memory=sized,
        memory_base_paddr=min((one.paddr for one in memory), default=None),
        reserved=tuple(sorted(reserved)),
        floating=tuple(floating),
        ramoops=tuple(ramoops),
        has_reserved_memory=there,
        reserved_cells=reserved_cells,
        console=console,
        console_compatible=property_words(tree.get_node(console), "compatible") if console else (),
        reboot_modes=tuple(sorted(set(_reboot_modes(root)))),
    )


def _number(node: Any, name: str) -> int:
    return int.from_bytes((property_bytes(node, name) or b"")[:_CELL_BYTES], "big")


def _framebuffers(tree: Any) -> Iterator[Area]:
    """The picture that the bootloader leaves on the screen is in memory, too."""
    if not tree.exist_node("/chosen"):
        return
    chosen = tree.get_node("/chosen")
    for node in chosen.nodes:
        if "simple-framebuffer" in property_words(node, "compatible") and available(node):
            yield from (one for one in _areas(node, _cells(chosen), node.name) if one.length_bytes)


def console_path(tree: Any) -> str:
    """The path of the console's node in a tree of the library `fdt`; "" where it names none."""
    if not tree.exist_node("/chosen"):
        return ""
    words = property_words(tree.get_node("/chosen"), "stdout-path")
    path = words[0].split(":")[0] if words else ""
    if path and not path.startswith("/") and tree.exist_node("/aliases"):
        aliased = property_words(tree.get_node("/aliases"), path)
        path = aliased[0] if aliased else ""
    return path if path.startswith("/") and tree.exist_node(path) else ""


def _reboot_modes(node: Any) -> Iterator[str]:
    """What `reboot MODE` of the kernel knows, by any of its reboot-mode drivers."""
    for one in node.props:
        # mode-switch, of USB Type-C, is one without a value.
        if one.name.startswith("mode-") and property_bytes(node, one.name):
            yield one.name.removeprefix("mode-")
    for child in node.nodes:
        yield from _reboot_modes(child)
