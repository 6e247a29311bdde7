"""Which nodes a board's console needs, and which of them a kernel has no driver for.

A device is probed when all its suppliers are: of what `drivers/of/property.c` of Linux 6.12 takes
for suppliers, those that fw_devlink waits for (not IOMMUs and DMA, which are optional, and no
rings, as of a clock controller and a PHY that clock each other), and the parents. Timers and PSCI
are needed as well. A kernel has a driver when the `compatible` string, ended by NUL as in its match
tables, is in its image: a string of another kind would pass, too.
Left out: firmware that refuses, and drivers that need more than the tree says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fdt

from farm.boards.tree import available, console_path, property_bytes, property_words

_CELL_BYTES = 4
# Property to the supplier's property that says how many cells follow the phandle.
_COUNTED = {
    "clocks": "#clock-cells",
    "interconnects": "#interconnect-cells",
    "interrupts-extended": "#interrupt-cells",
    "mboxes": "#mbox-cells",
    "power-domains": "#power-domain-cells",
    "hwlocks": "#hwlock-cells",
    "resets": "#reset-cells",
}
_PLAIN = ("interrupt-parent", "wakeup-parent")
_ALWAYS = ("/timer", "/soc/timer", "/soc@0/timer", "/psci", "/firmware/psci")


@dataclass(frozen=True)
class Supplier:
    """A node that has to be probed, by its path, and what it is compatible with."""

    path: str
    compatible: tuple[str, ...]


def suppliers_of_console(blob: bytes) -> tuple[Supplier, ...]:
    """Every node that must have a driver for the board to reach a shell, the console first."""
    graph = _Graph(fdt.parse_dtb(blob))
    waiting = graph.roots()
    found: dict[str, Supplier] = {}
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            found[path] = Supplier(path, graph.compatible(path))
            waiting += [one for one in graph.suppliers(path) if not graph.reaches(one, path)]
    return tuple(found.values())


def without_driver(blob: bytes, image: bytes) -> tuple[Supplier, ...]:
    """The suppliers of the board's console that the kernel ``image`` has no driver for."""
    return tuple(
        one
        for one in suppliers_of_console(blob)
        if not any(name.encode() + b"\0" in image for name in one.compatible)
    )


class _Graph:
    """The devices of a tree by their paths, and what each depends on."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._devices: dict[str, Any] = {}
        self._by_phandle: dict[int, tuple[str, Any]] = {}
        self._suppliers: dict[str, tuple[str, ...]] = {}
        for path, node in _all("", tree.get_node("/")):
            self._devices[path] = node
            if handle := property_bytes(node, "phandle"):
                self._by_phandle[int.from_bytes(handle, "big")] = path, node

    def roots(self) -> list[str]:
        path = console_path(self._tree)
        wanted = [one for one in (path, *_ALWAYS) if one in self._devices]
        return [one for one in wanted if self._device(one) == one]

    def compatible(self, path: str) -> tuple[str, ...]:
        return property_words(self._devices[path], "compatible")

    def suppliers(self, path: str) -> tuple[str, ...]:
        """The devices that ``path`` waits for, in one step."""
        if path not in self._suppliers:
            asked = [path.rpartition("/")[0], *self._referred(path)]
            devices = [self._device(one) for one in asked]
            self._suppliers[path] = tuple(dict.fromkeys(filter(None, devices)))
        return self._suppliers[path]

    def reaches(self, start: str, goal: str) -> bool:
        """Whether ``start`` waits for ``goal`` itself: of such a ring the kernel waits for none."""
        seen, waiting = {start}, [start]
        while waiting:
            for one in self.suppliers(waiting.pop()):
                if one == goal:
                    return True
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return False

    def _device(self, path: str) -> str:
        """The device that ``path`` is a part of, as a pin's group is; "" for none."""
        while path and not self.compatible(path):
            path = path.rpartition("/")[0]
        return path if path and available(self._devices[path]) else ""

    def _referred(self, path: str) -> Iterator[str]:
        node = self._devices[path]
        handles: list[int] = []
        for one in node.props:
            name = str(one.name)
            if name in _COUNTED:
                handles += self._counted(node, name)
            elif name in _PLAIN or name.endswith("-supply") or _is_pin_state(name):
                handles += _numbers(node, name)
        if property_bytes(node, "interrupts"):
            handles += self._interrupt_parent(path)
        yield from (self._by_phandle[one][0] for one in handles if one in self._by_phandle)

    def _interrupt_parent(self, path: str) -> list[int]:
        while not (found := _numbers(self._devices[path], "interrupt-parent")) and path:
            path = path.rpartition("/")[0]
        return found

    def _counted(self, node: Any, name: str) -> Iterator[int]:
        numbers = _numbers(node, name)
        at = 0
        while at < len(numbers):
            yield numbers[at]
            _, supplier = self._by_phandle.get(numbers[at], ("", None))
            cells = _numbers(supplier, _COUNTED[name]) if supplier is not None else []
            at += 1 + (cells[0] if cells else 0)


def _all(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    yield path, node
    for child in node.nodes:
        yield from _all(f"{path}/{child.name}", child)


def _numbers(node: Any, name: str) -> list[int]:
    raw = property_bytes(node, name) or b""
    return [
        int.from_bytes(raw[at : at + _CELL_BYTES], "big") for at in range(0, len(raw), _CELL_BYTES)
    ]


def _is_pin_state(name: str) -> bool:
    return name.startswith("pinctrl-") and name.removeprefix("pinctrl-").isdecimal()
