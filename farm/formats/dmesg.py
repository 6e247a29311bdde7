"""What a dmesg zone holds: a line with the time, then the log, as it is or compressed.

Source: ramoops_read_kmsg_hdr() in fs/pstore/ram.c and decompress_record() in fs/pstore/platform.c
of Linux 6.12; vsscanf() and _ctype[] in lib/, by whose rules the kernel reads the line.
Left out: the other algorithms that CONFIG_PSTORE_COMPRESS offered before 6.6.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

__all__ = ["DmesgText", "decode_dmesg", "inflate", "split_dmesg"]

MAX_DMESG_BYTES = 4 << 20
# White space in the kernel's format takes any amount of it, none included: the body loses what it
# begins with.  isspace() there knows one byte more than ASCII has.
_SPACE = rb"[\x09-\x0d\x20\xa0]*"
_LINE = re.compile(
    rb"===="
    + _SPACE
    + rb"(-?[0-9]{1,4000})\."
    + _SPACE
    + rb"([0-9]{1,4000})(?:-([^\0])|)"
    + _SPACE,
    re.DOTALL,
)
_STEP_BYTES = 256


@dataclass(frozen=True, slots=True)
class DmesgText:
    """What a dmesg zone holds; `complete` is False when compressed text could not be unpacked."""

    time_s: int
    time_us: int
    compressed: bool
    complete: bool
    text: bytes


def split_dmesg(contents: bytes) -> tuple[int, int, bool, bytes] | None:
    """Seconds, microseconds, whether the body is compressed, and body; None without the line."""
    match = _LINE.match(contents)
    if match is None:
        return None
    limit = 1 << 64
    return int(match[1]) % limit, int(match[2]) % limit, match[3] == b"C", contents[match.end() :]


def inflate(body: bytes, limit_bytes: int = MAX_DMESG_BYTES) -> tuple[bytes, bool, int]:
    """Unpack raw deflate: the text, whether its end was reached, and the bytes that took.

    What came out before a damaged place is kept.
    """
    unpacker = zlib.decompressobj(wbits=-15)
    text = bytearray()
    taken = 0
    try:
        # Small steps keep what came out before a damaged place.
        while taken < len(body) and not unpacker.eof and len(text) <= limit_bytes:
            piece = unpacker.unconsumed_tail + body[taken : taken + _STEP_BYTES]
            taken = min(taken + _STEP_BYTES, len(body))
            text += unpacker.decompress(piece, limit_bytes + 1 - len(text))
    except zlib.error:
        return bytes(text[:limit_bytes]), False, len(body)
    complete = unpacker.eof and len(text) <= limit_bytes
    return bytes(text[:limit_bytes]), complete, taken - len(unpacker.unused_data)


def decode_dmesg(contents: bytes) -> DmesgText | None:
    """Split what a dmesg zone holds into its line and its text; None without such a line.

    A compressed body is unpacked, to 4 MiB at most.
    """
    parts = split_dmesg(contents)
    if parts is None:
        return None
    time_s, time_us, compressed, body = parts
    complete = True
    if compressed:
        whole = contents[contents.index(b"\n") + 1 :] if b"\n" in contents[:64] else body
        body, complete, _ = inflate(body)
        if not complete:
            # Compressed text may begin with what the kernel takes for white space, and loses.
            tried = inflate(whole)
            body, complete = tried[:2] if tried[1] or len(tried[0]) > len(body) else (body, False)
    return DmesgText(time_s, time_us, compressed, complete, body)
