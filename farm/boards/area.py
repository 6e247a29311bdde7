"""Physical memory in pieces: a name, where it begins, how long it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Area:
    """``length_bytes`` of physical memory from ``paddr`` on, and whose they are."""

    paddr: int
    length_bytes: int
    name: str = ""

    @property
    def end_paddr(self) -> int:
        """The first address behind it."""
        return self.paddr + self.length_bytes

    def overlaps(self, other: Area) -> bool:
        """Whether the two have a byte in common."""
        return self.paddr < other.end_paddr and other.paddr < self.end_paddr

    def __str__(self) -> str:
        return f"{self.name} [{self.paddr:#x}, {self.end_paddr:#x})"


def covered(area: Area, by: Iterable[Area]) -> bool:
    """Whether every byte of ``area`` is in one of ``by``, which may touch each other."""
    at = area.paddr
    for one in sorted(by):
        if one.paddr <= at < one.end_paddr:
            at = one.end_paddr
    return at >= area.end_paddr


def one_line(text: str) -> str:
    """``text`` of a tree as it can stand in a comment: printable, and ending none."""
    return "".join(one if one.isprintable() else "?" for one in text).replace("*/", "*?")
