"""Names from a board, made safe to print, and compared although the kernel cuts long ones."""

from __future__ import annotations

__all__ = ["DEVICE_NAME_BYTES", "DRIVER_NAME_BYTES", "REGION_NAME_BYTES", "same_name", "shown"]

# Sizes of the fields in panicdump.rst, sections 1 and 2.
DRIVER_NAME_BYTES = 32
DEVICE_NAME_BYTES = 64
REGION_NAME_BYTES = 32


def shown(text: str, limit: int = 160) -> str:
    r"""Show ``text`` in printable ASCII: anything else comes out as ``\xNN`` of its UTF-8.

    ``limit`` is the most characters of the result. Showing twice changes nothing.
    """
    if text.isascii() and text.isprintable():
        escaped = text
    else:
        try:
            data = text[:limit].encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half of a pair, as JSON can spell it
            data = text[:limit].encode("utf-8", "surrogatepass")
        escaped = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data)
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def same_name(registered: str, recorded: str, recorded_raw: bytes, field_bytes: int) -> bool:
    """Whether ``recorded`` is ``registered``, or what a field of ``field_bytes`` keeps of it.

    Both are escaped as `farm.formats.layout.printable` does it, which is how the debugfs table's
    names come; ``recorded_raw`` is the field itself. A writer that always ends the field with a NUL
    keeps one byte less.
    """
    if registered == recorded:
        return True
    full = len(recorded_raw.split(b"\0", 1)[0]) >= field_bytes - 1
    return full and registered.startswith(recorded)
