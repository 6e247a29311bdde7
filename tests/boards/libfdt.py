"""Device trees read with libfdt itself (Debian: libfdt1), independently of the farm's reader."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field

_LIB = ctypes.CDLL("libfdt.so.1")
_LIB.fdt_get_name.restype = ctypes.c_char_p
_LIB.fdt_getprop.restype = ctypes.POINTER(ctypes.c_ubyte)


@dataclass
class Span:
    """So many bytes of memory from ``start`` on, and the node that claims them."""

    name: str
    start: int
    size: int

    def meets(self, other: Span) -> bool:
        return max(self.start, other.start) < min(self.start + self.size, other.start + other.size)


@dataclass
class Fdt:
    """A blob."""

    blob: bytes
    _buffer: ctypes.Array[ctypes.c_char] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(self.blob, len(self.blob))
        assert _LIB.fdt_check_header(self._buffer) == 0

    def offset(self, path: str) -> int:
        return int(_LIB.fdt_path_offset(self._buffer, path.encode()))

    def children(self, path: str) -> Iterator[tuple[str, int]]:
        at = _LIB.fdt_first_subnode(self._buffer, self.offset(path))
        while at >= 0:
            yield _LIB.fdt_get_name(self._buffer, at, None).decode(), at
            at = _LIB.fdt_next_subnode(self._buffer, at)

    def prop(self, node: int, name: str) -> bytes | None:
        size = ctypes.c_int()
        found = _LIB.fdt_getprop(self._buffer, node, name.encode(), ctypes.byref(size))
        return bytes(found[: size.value]) if size.value >= 0 else None

    def number(self, node: int, name: str) -> int:
        return int.from_bytes(self.prop(node, name) or b"", "big")

    def spans(self, path: str) -> Iterator[tuple[int, Span]]:
        """Of each child of ``path`` that is not disabled: its node, and each piece of its reg."""
        parent = self.offset(path)
        address = 4 * _LIB.fdt_address_cells(self._buffer, parent)
        size = 4 * _LIB.fdt_size_cells(self._buffer, parent)
        for name, node in self.children(path):
            if (self.prop(node, "status") or b"okay").rstrip(b"\0") not in (b"okay", b"ok"):
                continue
            reg = self.prop(node, "reg") or b""
            for at in range(0, len(reg) - address - size + 1, address + size):
                start = int.from_bytes(reg[at : at + address], "big")
                length = int.from_bytes(reg[at + address : at + address + size], "big")
                yield node, Span(name, start, length)
