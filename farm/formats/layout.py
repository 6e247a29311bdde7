"""Fixed binary layouts: each structure is declared once, as a table of offsets.

Source: the declarations live beside the format they belong to; this module only turns a table of
(offset, code, name) into a checked `struct` format.  Codes are those of the `struct` module.
Left out: big-endian layouts and bit fields; no format of panicdump has either.
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from farm.errors import FormatError

__all__ = ["Damage", "OpenEnum", "StructTable", "Values", "flag_names", "printable"]


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """One thing in the input that is not as its format says.

    `offset` is in bytes from the start of the input that was decoded, `length` the number of bytes
    concerned, None where that cannot be told.
    """

    offset: int
    length: int | None
    what: str


class OpenEnum(enum.IntEnum):
    """Integer enum that takes values it does not know and names them in hex."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        # Not entered into the class: hostile input must not make the enum grow.
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value:#x}"
        member._value_ = value
        return member

    @property
    def known(self) -> bool:
        """Whether the format gives this value a meaning."""
        return self._name_ in type(self).__members__


def flag_names(flags: enum.IntFlag) -> tuple[str, ...]:
    """Names of the bits that are set, lowest first; bits without a meaning are named in hex."""
    names: list[str] = []
    value = int(flags)
    known = {int(member): member.name or hex(member) for member in type(flags)}
    bit = 1
    while bit <= value:
        if value & bit:
            names.append(known.get(bit, f"UNKNOWN_{bit:#x}"))
        bit <<= 1
    return tuple(names)


def printable(raw: bytes) -> str:
    """Text of a fixed-size name up to its first NUL, safe to print anywhere.

    Everything outside printable ASCII, and the backslash, comes out as ``\\xNN``.
    """
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}"
        for byte in raw.split(b"\0", 1)[0]
    )


class Values:
    """The fields of one unpacked structure, by name and type."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, int | bytes]) -> None:
        self._values = values

    def number(self, name: str) -> int:
        """An integer field."""
        value = self._values[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} is declared as bytes")
        return value

    def raw(self, name: str) -> bytes:
        """A field of bytes, at its full declared length."""
        value = self._values[name]
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is declared as a number")
        return value


class StructTable:
    """A little-endian structure declared as (offset, `struct` code, name) with its length and id.

    Gaps are padding.  `magic` is the id the structure begins with, if it has one.
    """

    __slots__ = ("_names", "_offsets", "_struct", "magic", "name", "size_bytes")

    def __init__(
        self,
        name: str,
        size_bytes: int,
        fields: Sequence[tuple[int, str, str]],
        *,
        magic: bytes | None = None,
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.magic = magic
        codes = "<"
        at = 0
        for offset, code, field in fields:
            if offset < at:
                raise ValueError(f"{name}.{field} at {offset} overlaps the field before it")
            codes += f"{offset - at}x{code}"
            at = offset + struct.calcsize("<" + code)
        if at > size_bytes:
            raise ValueError(f"{name} is declared {size_bytes} bytes long, its fields need {at}")
        self._struct = struct.Struct(f"{codes}{size_bytes - at}x")
        self._names = tuple(field for _, _, field in fields)
        self._offsets = {field: offset for offset, _, field in fields}

    def offset_of(self, field: str) -> int:
        """Offset of a field in bytes."""
        return self._offsets[field]

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names in order of offset."""
        return self._names

    def unpack(self, data: bytes | mmap.mmap, offset: int = 0) -> Values:
        """Unpack the structure at `offset`.

        Raises FormatError, with the offset of the structure, when the input ends inside it.
        """
        if offset < 0 or offset + self.size_bytes > len(data):
            raise FormatError(
                f"{self.name} needs {self.size_bytes} bytes, "
                f"the input has {max(0, len(data) - offset)} here",
                offset=offset,
            )
        return Values(dict(zip(self._names, self._struct.unpack_from(data, offset), strict=True)))
