"""What a device tree blob says of ramoops.

Source: Documentation/devicetree/bindings/reserved-memory/ramoops.yaml of Linux 6.12, with the
`panicdump-size` of the series; ramoops_parse_dt() in fs/pstore/ram.c; for the blob, Devicetree
Specification 0.4, chapter 5.
A blob out of a kernel's memory has NOP tokens where the kernel wiped something, which the
library `fdt` does not read; and it may be damaged.
Left out: addresses that a bus translates; the reservation block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import StructTable
from farm.formats.ramoops import RamoopsSizes

__all__ = ["FDT_MAGIC", "MAX_BLOB_BYTES", "RamoopsNode", "ramoops_nodes"]

FDT_MAGIC = b"\xd0\x0d\xfe\xed"
MAX_BLOB_BYTES = 4 << 20
_PER_CPU = 1
_BEGIN, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
_MAX_DEPTH = 64
_MAX_NAME_BYTES = 64
_WANTED = frozenset(
    (
        b"compatible",
        b"reg",
        b"record-size",
        b"panicdump-size",
        b"console-size",
        b"pmsg-size",
        b"ftrace-size",
        b"ecc-size",
        b"flags",
    )
)

# Big-endian, as everything in a blob: the words are turned where they are used.
HEADER = StructTable(
    "device tree header",
    40,
    ((0, "4s", "magic"), (4, "I", "totalsize"), (8, "I", "struct_at"), (12, "I", "strings_at")),
)


@dataclass(frozen=True, slots=True)
class RamoopsNode:
    """A region at a physical address, with the sizes of its zones.

    `ftrace_zones` of the sizes is 1 where the tree asks for one per processor: how many these are
    is counted by the caller, of `per_cpu` it is told.
    """

    paddr: int
    sizes: RamoopsSizes
    per_cpu: bool


@dataclass(slots=True)
class _Node:
    """A node while it is open: cells are those that it gives to its children."""

    name: bytes
    cells: tuple[int, int]
    reserved: bool
    properties: dict[bytes, bytes]


def ramoops_nodes(blob: bytes) -> tuple[RamoopsNode, ...]:
    """Every ramoops node with a place of its own.

    Work is linear in the blob.  Raises FormatError, with the offset, when the blob is no device
    tree, is damaged, or is larger than 4 MiB.
    """
    values = HEADER.unpack(blob)
    if not blob.startswith(FDT_MAGIC):
        raise FormatError("not a device tree blob", offset=0)
    size, at = _big(values.number("totalsize")), _big(values.number("struct_at"))
    names_at = _big(values.number("strings_at"))
    if size > min(MAX_BLOB_BYTES, len(blob)):
        raise FormatError(f"a device tree blob of {size} bytes", offset=4)
    return tuple(_walk(blob[:size], at, names_at))


def _big(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "little"), "big")


def _walk(blob: bytes, at: int, names_at: int) -> Iterator[RamoopsNode]:
    open_nodes: list[_Node] = []
    while at + 4 <= len(blob):
        token = int.from_bytes(blob[at : at + 4], "big")
        at += 4
        if token == _BEGIN:
            end = blob.find(b"\0", at)
            if end < 0 or len(open_nodes) >= _MAX_DEPTH:
                raise FormatError("device tree: a node's name has no end", offset=at)
            parent = open_nodes[-1] if open_nodes else None
            name = blob[at:end]
            reserved = parent is not None and parent.name == b"reserved-memory"
            open_nodes.append(_Node(name, (2, 1), reserved, {}))
            at = end + 4 & ~3
        elif token == _PROPERTY and open_nodes:
            size = int.from_bytes(blob[at : at + 4], "big")
            where = names_at + int.from_bytes(blob[at + 4 : at + 8], "big")
            if at + 8 + size > len(blob):
                raise FormatError("device tree: a property passes the end", offset=at)
            name = blob[where : where + _MAX_NAME_BYTES].split(b"\0", 1)[0]
            value = blob[at + 8 : at + 8 + size]
            node = open_nodes[-1]
            if name in _WANTED:
                node.properties.setdefault(name, value)
            if name == b"#address-cells":
                node.cells = _cell(value), node.cells[1]
            elif name == b"#size-cells":
                node.cells = node.cells[0], _cell(value)
            at = at + 8 + size + 3 & ~3
        elif token == _END_NODE and open_nodes:
            node = open_nodes.pop()
            if b"ramoops" in node.properties.get(b"compatible", b"").split(b"\0"):
                cells = open_nodes[-1].cells if open_nodes else (2, 1)
                if (found := _ramoops(node, *cells)) is not None:
                    yield found
        elif token == _END:
            return
        elif token != _NOP:
            raise FormatError(f"device tree: token {token:#x}", offset=at - 4)
    raise FormatError("the device tree has no end", offset=len(blob))


def _cell(value: bytes) -> int:
    return int.from_bytes(value[:4], "big") if len(value) >= 4 else 0


def _ramoops(node: _Node, address_cells: int, size_cells: int) -> RamoopsNode | None:
    reg = node.properties.get(b"reg", b"")
    if not 1 <= address_cells <= 2 or not 1 <= size_cells <= 2:
        return None
    middle, end = 4 * address_cells, 4 * (address_cells + size_cells)
    if len(reg) < end:
        return None

    def number(name: bytes) -> int:
        return _cell(node.properties.get(name, b""))

    record = number(b"record-size")
    console, ftrace, pmsg = number(b"console-size"), number(b"ftrace-size"), number(b"pmsg-size")
    ecc = number(b"ecc-size")
    if not node.reserved and not (console or ftrace or pmsg or ecc):
        console = pmsg = record
    sizes = RamoopsSizes(
        mem_size_bytes=int.from_bytes(reg[middle:end], "big"),
        record_size_bytes=record,
        panicdump_size_bytes=number(b"panicdump-size"),
        console_size_bytes=console,
        pmsg_size_bytes=pmsg,
        ftrace_size_bytes=ftrace,
        ecc_size_bytes=ecc,
    )
    return RamoopsNode(
        int.from_bytes(reg[:middle], "big"), sizes, bool(number(b"flags") & _PER_CPU)
    )
