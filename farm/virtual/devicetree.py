"""The board's device tree: what it says about ramoops, and a copy of it for each boot.

Formats: the flattened device tree of devicetree.org, read and written by the library `fdt`;
`Documentation/devicetree/bindings/reserved-memory/ramoops.yaml` plus `panicdump-size`.
Left out: several ramoops nodes in one tree; a ramoops node outside of /reserved-memory.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import fdt

from farm.errors import UsageError
from farm.virtual.options import BoardOptions

RAM_BASE_PADDR = 0x4000_0000

_ZONE_HEADER_BYTES = 12
_BLOCK_BYTES = 128


@dataclass(frozen=True)
class Zone:
    """One ramoops zone; ``ecc_size_bytes`` of parity per 128 data bytes, 0 for none."""

    name: str
    paddr: int
    length_bytes: int
    ecc_size_bytes: int

    @property
    def data_paddr(self) -> int:
        """Where the data begins, after the header of three 32-bit words."""
        return self.paddr + _ZONE_HEADER_BYTES

    @property
    def _nr_blocks(self) -> int:
        """ECC blocks, as fs/pstore/ram_core.c:persistent_ram_init_ecc() counts them."""
        whole = self.length_bytes - _ZONE_HEADER_BYTES
        ecc = self.ecc_size_bytes
        return -(-(whole - ecc) // (_BLOCK_BYTES + ecc)) if ecc else 0

    @property
    def data_size_bytes(self) -> int:
        """How much data fits."""
        parity = (self._nr_blocks + 1) * self.ecc_size_bytes
        return self.length_bytes - _ZONE_HEADER_BYTES - parity

    def data_blocks(self, used_size_bytes: int) -> list[range]:
        """The data's blocks of 128 bytes, up to ``used_size_bytes`` of data."""
        size = min(self.data_size_bytes, used_size_bytes)
        return split_blocks(range(self.data_paddr, self.data_paddr + size))

    def ecc_blocks(self) -> list[tuple[range, ...]]:
        """What one ECC word protects, each with its parity: the header, then the data's blocks."""
        data = self.data_blocks(self.data_size_bytes)
        header = range(self.paddr, self.data_paddr)
        ecc = self.ecc_size_bytes
        if not ecc:
            return [(header,), *((block,) for block in data)]
        parity = self.data_paddr + self.data_size_bytes
        starts = [parity + index * ecc for index in range(self._nr_blocks + 1)]
        words = [range(start, start + ecc) for start in starts]
        return [(header, words[-1]), *zip(data, words[:-1], strict=True)]


@dataclass(frozen=True)
class RamoopsArea:
    """The memory that ramoops owns, and its zones in address order."""

    paddr: int
    length_bytes: int
    zones: tuple[Zone, ...]


def split_blocks(span: range) -> list[range]:
    """``span`` in pieces of 128 bytes, the last one possibly shorter."""
    return [
        range(start, min(start + _BLOCK_BYTES, span.stop))
        for start in range(span.start, span.stop, _BLOCK_BYTES)
    ]


def _load(dtb: bytes, source: Path) -> fdt.FDT:
    try:
        return fdt.parse_dtb(dtb)
    except Exception as error:
        raise UsageError(f"{source} is not a device tree blob: {error}") from error


def _ramoops_node(tree: fdt.FDT) -> fdt.Node | None:
    if not tree.exist_node("/reserved-memory"):
        return None
    for node in tree.get_node("/reserved-memory").nodes:
        compatible = node.get_property("compatible")
        if compatible is not None and "ramoops" in list(compatible):
            return node
    return None


def _number(node: fdt.Node, name: str) -> int:
    found = node.get_property(name)
    return 0 if found is None else int(found[0])


def _zone_size_bytes(node: fdt.Node, name: str) -> int:
    size = _number(node, name)
    return 1 << (size.bit_length() - 1) if size else 0


def read_ramoops(dtb: Path, ecc_size_bytes: int | None = None) -> RamoopsArea | None:
    """The ramoops area that ``dtb`` describes, or None; raises UsageError for no tree at all.

    ``ecc_size_bytes``, unless None, stands in for the tree's own.
    """
    node = _ramoops_node(_load(dtb.read_bytes(), dtb))
    if node is None:
        return None
    cells = [int(cell) for cell in node.get_property("reg")]
    base, length = (cells[0] << 32) | cells[1], (cells[2] << 32) | cells[3]
    ecc = _number(node, "ecc-size") if ecc_size_bytes is None else ecc_size_bytes
    tail = {
        name: _zone_size_bytes(node, f"{name}-size")
        for name in ("panicdump", "console", "pmsg", "ftrace")
    }
    zones: list[Zone] = []
    for_dmesg = length - sum(tail.values())
    record = _zone_size_bytes(node, "record-size")
    count = for_dmesg // record if record else 0
    stride = (for_dmesg // count) & ~1 if count else 0
    zones.extend(Zone(f"dmesg-{i}", base + i * stride, stride, ecc) for i in range(count))
    paddr = base + for_dmesg
    for name, size in tail.items():
        if size:
            zones.append(Zone(name, paddr, size, ecc))
            paddr += size
    return RamoopsArea(base, length, tuple(zones))


def prepare(options: BoardOptions) -> bytes:
    """The device tree of one boot, with fresh seeds; raises UsageError for what cannot be.

    QEMU itself randomises neither seed of a tree that it is given, and the kernel wipes both.
    """
    tree = _load(options.dtb.read_bytes(), options.dtb)
    memory = f"/memory@{RAM_BASE_PADDR:x}"
    if not tree.exist_node(memory) or not tree.exist_node("/cpus"):
        raise UsageError(f"{options.dtb} is not a tree for this board: no {memory} or /cpus")
    size = options.memory_size_bytes
    tree.set_property("reg", [0, RAM_BASE_PADDR, size >> 32, size & 0xFFFF_FFFF], memory)
    processors = [node for node in tree.get_node("/cpus").nodes if node.name.startswith("cpu@")]
    if len(processors) < options.cpus:
        raise UsageError(
            f"--cpus {options.cpus}: {options.dtb} describes {len(processors)} processors"
        )
    for node in processors[options.cpus :]:
        tree.remove_node(node.name, "/cpus")
    ramoops = _ramoops_node(tree)
    if ramoops is not None:
        cells = [int(cell) for cell in ramoops.get_property("reg")]
        end = ((cells[0] << 32) | cells[1]) + ((cells[2] << 32) | cells[3])
        if end > RAM_BASE_PADDR + size:
            raise UsageError(
                f"--memory-mib {options.memory_mib}: ramoops ends at 0x{end:x}, behind the DRAM"
            )
    if options.ecc_size_bytes is not None:
        if ramoops is None:
            raise UsageError(f"--ecc-size: {options.dtb} has no ramoops node")
        ramoops.set_property("ecc-size", options.ecc_size_bytes)
    if options.append:
        bootargs = tree.get_property("bootargs", "/chosen")
        words = [] if bootargs is None else [str(bootargs.value)]
        tree.set_property("bootargs", " ".join([*words, options.append]), "/chosen")
    tree.set_property("kaslr-seed", list(struct.unpack(">2I", os.urandom(8))), "/chosen")
    tree.set_property("rng-seed", list(struct.unpack(">16I", os.urandom(64))), "/chosen")
    return bytes(tree.to_dtb(version=17))
