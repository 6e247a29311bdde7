"""Memory as U-Boot's ``md.b`` prints it: ``40000000: 00 01 ... 0f  ................``.

Source: U-Boot, lib/display_options.c (print_buffer). ``fastboot`` puts ``(bootloader) `` before,
and the first line behind its own words.
"""

from __future__ import annotations

import re

from farm.errors import FormatError

_LINE = re.compile(
    r"^[ \t]*(?:\(bootloader\)\s*)?([0-9a-f]{8,16}):((?: [0-9a-f]{2}){1,16}) {2,}",
    re.IGNORECASE | re.M,
)


def parse_hexdump(text: str, address: int, length: int) -> bytes:
    """The bytes that ``text`` shows; raises FormatError (line number) unless all are there."""
    data = bytearray()
    for number, found in enumerate(_LINE.finditer(text), 1):
        at = int(found[1], 16)
        if at != address + len(data):
            raise FormatError(f"line {number} shows {at:#x}, expected next", offset=number)
        data += bytes.fromhex(found[2])
    if len(data) != length:
        raise FormatError(f"{len(data)} bytes are shown, {length} were asked for", offset=len(data))
    return bytes(data)
