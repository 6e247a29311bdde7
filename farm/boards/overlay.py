"""The overlay that gives a board its ramoops node: its source.

An overlay cannot take a node away: one that is in the way is disabled, which the kernel heeds.
"""

from __future__ import annotations

from farm.boards.area import one_line
from farm.boards.place import Place
from farm.boards.tree import BoardTree

_LICENCE = "// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"


def _cells(value: int, count: int) -> str:
    return " ".join(f"{value >> 32 * at & 0xFFFFFFFF:#x}" for at in reversed(range(count)))


def source(tree: BoardTree, place: Place) -> str:
    """The overlay as source text, with a comment that says why the region is where it is."""
    properties = place.layout.properties()
    name = place.existing.path.rpartition("/")[2] if place.existing is not None else ""
    address, size = tree.reserved_cells
    body = [f"\t\t\t{key} = <{value:#x}>;" for key, value in properties.items()]
    if not name:
        name = place.area.name
        where = f"{_cells(place.area.paddr, address)} {_cells(place.area.length_bytes, size)}"
        body = ['\t\t\tcompatible = "ramoops";', f"\t\t\treg = <{where}>;", *body]
    nodes = [f"\t\t{name} {{", *body, "\t\t};"]
    for path in place.disabled:
        nodes += ["", f"\t\t{path.rpartition('/')[2]} {{", '\t\t\tstatus = "disabled";', "\t\t};"]
    head = [
        _LICENCE,
        "/*",
        f" * {one_line(tree.model)}: ramoops with a zone for panicdump.",
        f" * {place.area.paddr:#x}: {one_line(place.why)}.",
        " */",
        "",
        "/dts-v1/;",
        "/plugin/;",
        "",
    ]
    if tree.has_reserved_memory:
        path, depth = "/reserved-memory", 0
    else:
        path, depth = "/", 1
        own = [
            "\t\treserved-memory {",
            f"\t\t\t#address-cells = <{address}>;",
            f"\t\t\t#size-cells = <{size}>;",
            "\t\t\tranges;",
            "",
        ]
        nodes = [*own, *(f"\t{line}" if line else "" for line in nodes), "\t\t};"]
    cells = [] if depth else [f"\t\t#address-cells = <{address}>;", f"\t\t#size-cells = <{size}>;"]
    lines = [
        *head,
        f"&{{{path}}} {{",
        *(line.removeprefix("\t") for line in [*cells, *([""] if cells else []), *nodes]),
        "};",
        "",
    ]
    return "\n".join(lines)
