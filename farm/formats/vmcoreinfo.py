"""VMCOREINFO: what a kernel tells debuggers of itself, lines of text in a page of its memory.

Source: Documentation/admin-guide/kdump/vmcoreinfo.rst and kernel/vmcore_info.c of Linux 6.12.
Left out: what each architecture but arm64 adds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from farm.errors import FormatError
from farm.formats.layout import printable

__all__ = ["FIRST_WORD", "MAX_BYTES", "VmcoreInfo", "parse_vmcoreinfo"]

FIRST_WORD = b"OSRELEASE="
MAX_BYTES = 4096
_LINE = re.compile(rb"([A-Za-z][A-Za-z0-9_-]*(?:\([A-Za-z0-9_.]+\))?)=([!-~ ]*)")
_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True)
class VmcoreInfo:
    """The lines by what stands before the `=`, and the text as it was found."""

    values: Mapping[str, str]
    text: bytes

    @property
    def release(self) -> str:
        """The kernel's release, escaped."""
        return self.values.get("OSRELEASE", "")

    @property
    def build_id(self) -> str | None:
        """The kernel's build id, in hex."""
        return self.values.get("BUILD-ID")

    @property
    def page_size(self) -> int | None:
        """Bytes of a page."""
        return self._number("PAGESIZE", 10)

    @property
    def kernel_offset(self) -> int | None:
        """How far the kernel was moved from where it was linked to."""
        return self._number("KERNELOFFSET", 16)

    def symbol(self, name: str) -> int | None:
        """Virtual address of a symbol, as it was after the kernel was moved."""
        return self._number(f"SYMBOL({name})", 16)

    def number(self, name: str) -> int | None:
        """A NUMBER, which may be negative."""
        value = self.values.get(f"NUMBER({name})", "")
        return self._number(f"NUMBER({name})", 16 if value.startswith("0x") else 10)

    def _number(self, key: str, base: int) -> int | None:
        text = self.values.get(key, "")
        if len(text) > 24 or not re.fullmatch(r"-?(0x)?[0-9a-fA-F]+", text):
            return None
        try:
            value = int(text, base)
        except ValueError:
            return None
        return value if abs(value) < _LIMIT else None


def parse_vmcoreinfo(data: bytes) -> VmcoreInfo:
    """Parse the text that `data` begins with, to its first NUL.

    Lines that are no key=value are passed over.  Raises FormatError when it does not begin with
    the kernel's release, or has no page size.
    """
    text = data[:MAX_BYTES].split(b"\0", 1)[0]
    if not text.startswith(FIRST_WORD):
        raise FormatError("VMCOREINFO begins with OSRELEASE=, this does not", offset=0)
    values: dict[str, str] = {}
    for line in text.split(b"\n"):
        match = _LINE.fullmatch(line)
        if match is not None:
            values.setdefault(match[1].decode(), printable(match[2]))
    info = VmcoreInfo(MappingProxyType(values), text)
    if info.page_size not in (4096, 16384, 65536):
        raise FormatError("VMCOREINFO without a page size", offset=0)
    return info
