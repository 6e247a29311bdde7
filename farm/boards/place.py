"""Where ramoops can lie: in RAM, and on nothing that the tree or the firmware has taken.

What of RAM is known comes from the tree where it says a size, else from chips.yaml, else it is
only what lies between the tree's own reservations: all of them are in RAM.
Zones: Documentation/admin-guide/panicdump.rst of the series. fs/pstore/ram.c rounds each size down
to a power of two and cuts what is left of the region into records; what does not divide is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.boards.area import Area, covered
from farm.boards.chips import ChipFacts
from farm.boards.tree import BoardTree, RamoopsNode

_ALIGN_BYTES = 1 << 20
_BEYOND_32_BITS = 1 << 32


@dataclass(frozen=True)
class Layout:
    """The sizes of a ramoops region and its zones, in bytes."""

    region_bytes: int
    record_bytes: int
    console_bytes: int
    pmsg_bytes: int
    panicdump_bytes: int
    ecc_bytes: int

    def properties(self) -> dict[str, int]:
        """The sizes by the properties of the binding."""
        return {
            "record-size": self.record_bytes,
            "console-size": self.console_bytes,
            "ftrace-size": 0,
            "pmsg-size": self.pmsg_bytes,
            "panicdump-size": self.panicdump_bytes,
            "ecc-size": self.ecc_bytes,
        }


DEFAULT = Layout(0x200000, 0x20000, 0x20000, 0x20000, 0x100000, 16)
# Its sizes are fixed, and its console zone is where the kernel has it: last.
LK2ND = Layout(0x80000, 0x2000, 0x40000, 0, 0x20000, 0)
LAYOUTS = {"default": DEFAULT, "lk2nd": LK2ND}


@dataclass(frozen=True)
class Memory:
    """What is known of a board's memory; ``ram_source`` says from where."""

    ram: tuple[Area, ...]
    ram_source: str
    taken: tuple[Area, ...]


@dataclass(frozen=True)
class Place:
    """Where ramoops goes, with which sizes, and why there.

    ``existing`` is the tree's own node where it is kept; ``disabled`` lists the nodes that have to
    make way.
    """

    area: Area
    layout: Layout
    why: str
    existing: RamoopsNode | None = None
    disabled: tuple[str, ...] = ()


def memory_of(tree: BoardTree, facts: ChipFacts | None, ram: tuple[Area, ...] = ()) -> Memory:
    """What is known of the board's memory; ``ram``, where given, is taken for its RAM."""
    firmware = tuple(one.area for one in facts.firmware) if facts is not None else ()
    taken = tuple(sorted({*tree.reserved, *firmware}))
    if ram:
        return Memory(ram, "as given", taken)
    if tree.memory:
        return Memory(tree.memory, "the tree's memory nodes", taken)
    if facts is not None:
        # Who wrote a board's ramoops node knew that there is RAM, however much a chip has at least.
        own = (Area(one.area.paddr, one.area.length_bytes, "RAM") for one in tree.ramoops)
        known = (*(Area(*one, "RAM") for one in facts.ram), *own)
        return Memory(known, facts.ram_source, taken)
    claimed = [*tree.reserved, *(node.area for node in tree.ramoops)]
    low = [one for one in claimed if one.end_paddr <= _BEYOND_32_BITS]
    if not low:
        return Memory((), "nothing is known", taken)
    start, end = min(low).paddr, max(one.end_paddr for one in low)
    between = Area(start, end - start, "RAM")
    return Memory((between,), "between the tree's own reservations", taken)


def faults(
    area: Area, sizes: dict[str, int], memory: Memory, *, is_our_own: bool = True
) -> tuple[str, ...]:
    """What is wrong with ramoops at ``area``: each conflict with both regions named.

    ``is_our_own``: it must have room for panicdump, and all sizes must divide evenly.
    """
    found = [f"{area} overlaps {one}" for one in memory.taken if area.overlaps(one)]
    if memory.ram and not covered(area, memory.ram):
        known = ", ".join(str(one) for one in memory.ram)
        found.append(f"{area} is not inside {known} ({memory.ram_source})")
    if not memory.ram:
        found.append(f"{area}: nothing is known of this board's RAM")
    return (*found, *(size_faults(area, sizes) if is_our_own else ()))


def size_faults(area: Area, sizes: dict[str, int]) -> tuple[str, ...]:
    """What of the region the kernel would not use, or not as it is written."""
    found = []
    zones = {name: size for name, size in sizes.items() if name != "ecc-size" and size}
    for name, size in zones.items():
        if size & (size - 1):
            found.append(f"{area}: {name} {size:#x} is no power of two")
    if not sizes.get("panicdump-size"):
        found.append(f"{area}: there is no panicdump-size")
    others = sum(size for name, size in zones.items() if name != "record-size")
    left = area.length_bytes - others
    record = sizes.get("record-size", 0)
    if left < record:
        found.append(f"{area}: its zones need {others + record:#x} bytes")
    elif record and left % record:
        found.append(f"{area}: record-size {record:#x} does not divide the {left:#x} bytes left")
    elif not record and left:
        found.append(f"{area}: {left:#x} bytes belong to no zone")
    if area.paddr % 0x1000 or area.length_bytes % 0x1000:
        found.append(f"{area} does not begin and end with a page")
    return tuple(found)


def fitted(node: RamoopsNode) -> Layout | None:
    """Sizes with panicdump for a region that the tree has, keeping what it has; None: too small.

    Half of the region at most goes to panicdump, and less where the tree's own zones need it; a
    record is as large as the tree says, or smaller, so that all of them fit.
    """

    def power(size: int) -> int:
        return 1 << (size.bit_length() - 1) if size else 0

    total = node.area.length_bytes
    if total % 0x1000 or total < 0x20000:
        return None
    console = min(power(node.sizes["console-size"]), power(total // 8))
    pmsg = min(power(node.sizes["pmsg-size"]), power(total // 8))
    dump = power(total // 2)
    record = min(power(node.sizes["record-size"]) or 0x4000, power(total // 8))
    while record >= 0x1000:
        left = total - console - pmsg - dump
        if left >= record and left % record == 0:
            return Layout(total, record, console, pmsg, dump, node.sizes["ecc-size"])
        record //= 2
    return None


def find_place(
    tree: BoardTree,
    memory: Memory,
    facts: ChipFacts | None,
    wanted: Layout = DEFAULT,
) -> Place | tuple[str, ...]:
    """Where ramoops goes, or why it can go nowhere: each candidate's conflicts.

    In this order: the tree's own node, the chip's known place, the highest free place in the RAM
    that is known, below 4 GiB.
    """
    why: list[str] = []
    known = facts.ramoops if facts is not None else None
    for node in () if known is not None and known.instead else tree.ramoops:
        layout = fitted(node)
        wrong = faults(node.area, {}, memory, is_our_own=False)
        if layout is not None and not wrong:
            others = tuple(one.path for one in tree.ramoops if one is not node)
            return Place(node.area, layout, f"the tree's own {node.path}", node, others)
        why += wrong or [f"{node.area} has no room for panicdump beside its other zones"]
    old = tuple(node.path for node in tree.ramoops)
    if known is not None:
        layout = LAYOUTS[known.layout] if known.layout != "default" else wanted
        area = named(known.paddr, layout)
        wrong = faults(area, layout.properties(), memory)
        if not wrong:
            return Place(area, layout, known.source, disabled=old)
        why += wrong
    for ram in reversed(memory.ram):
        at = min(ram.end_paddr, _BEYOND_32_BITS) - wanted.region_bytes
        at -= at % _ALIGN_BYTES
        while at >= ram.paddr:
            area = named(at, wanted)
            hit = [one for one in memory.taken if area.overlaps(one)]
            if not hit:
                return Place(area, wanted, f"free, in RAM ({memory.ram_source})", disabled=old)
            at = min(one.paddr for one in hit) - wanted.region_bytes
            at -= at % _ALIGN_BYTES
    if not why:
        size = f"no free place for {wanted.region_bytes:#x} bytes"
        why += [
            f"{size} in {ram}, beside "
            + (", ".join(str(one) for one in memory.taken if one.overlaps(ram)) or "nothing")
            for ram in memory.ram
        ] or [f"{size}: {memory.ram_source} of this board's RAM"]
    return tuple(why)


def named(paddr: int, layout: Layout) -> Area:
    """The region of ``layout`` at ``paddr``, named as its node."""
    return Area(paddr, layout.region_bytes, f"ramoops@{paddr:x}")
