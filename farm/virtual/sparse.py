"""Android's sparse images, as a bootloader unpacks them.

Source: AOSP, system/core/libsparse/sparse_format.h. Left out: the CRC32 chunk's check.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAGIC = 0xED26_FF3A
_FILE = struct.Struct("<I4H4I")
_CHUNK = struct.Struct("<2H2I")
_RAW, _FILL, _SKIP, _SUM = 0xCAC1, 0xCAC2, 0xCAC3, 0xCAC4


class BadSparseError(ValueError):
    """What is no sparse image, or leads out of itself."""


def is_sparse(data: bytes) -> bool:
    """Whether ``data`` begins a sparse image."""
    return len(data) >= _FILE.size and struct.unpack_from("<I", data)[0] == MAGIC


def unpack(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what is to be written; raises BadSparseError."""
    _, major, _, head, chunk_head, block, _, chunks, _ = _FILE.unpack_from(data)
    if major != 1 or head < _FILE.size or chunk_head < _CHUNK.size or not block or block % 4:
        raise BadSparseError("the header of a sparse image is not sound")
    at, offset = head, 0
    for _ in range(chunks):
        if at + chunk_head > len(data):
            raise BadSparseError(f"a chunk at {at} leads out of the image")
        kind, _, blocks, size = _CHUNK.unpack_from(data, at)
        body = data[at + chunk_head : at + size]
        if size < chunk_head or at + size > len(data):
            raise BadSparseError(f"a chunk at {at} leads out of the image")
        if kind == _RAW:
            if len(body) != blocks * block:
                raise BadSparseError(f"a raw chunk at {at} has {len(body)} bytes")
            yield offset, body
        elif kind == _FILL:
            yield offset, body[:4] * (blocks * block // 4)
        elif kind not in (_SKIP, _SUM):
            raise BadSparseError(f"a chunk of kind {kind:#x} at {at}")
        if kind != _SUM:
            offset += blocks * block
        at += size
