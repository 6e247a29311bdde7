"""What a region should hold, and where what it holds differs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from farm.formats.pattern import expected_bytes
from farm.model import ManifestDevice, ManifestRegion, RegionKind

__all__ = ["Difference", "first_difference", "full_size_bytes", "planted_bytes"]

SAMPLE_DRIVER = "panicdump-sample"
_SAMPLE_NAME = re.compile(r"panicdump-sample\.([0-9]{1,6})", re.ASCII)
_SHORT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs of bytes of one length differ; offsets and counts in bytes, texts in hex."""

    offset: int
    wrong_bytes: int
    expected: str
    got: str


def first_difference(expected: bytes, got: bytes) -> Difference | None:
    """Compare two runs of bytes; a missing or surplus tail is not compared."""
    size_bytes = min(len(expected), len(got))
    if expected[:size_bytes] == got[:size_bytes]:
        return None
    wrong = np.flatnonzero(
        np.frombuffer(expected, np.uint8, size_bytes) != np.frombuffer(got, np.uint8, size_bytes)
    )
    first = int(wrong[0])
    end = min(first + _SHORT_BYTES, size_bytes)
    return Difference(first, len(wrong), expected[first:end].hex(" "), got[first:end].hex(" "))


def full_size_bytes(region: ManifestRegion) -> int:
    """Return how many bytes a complete dump of ``region`` holds; a callback's is its maximum.

    Registers are packed, whatever lies between them: panicdump.rst, section 2.
    """
    if region.kind is not RegionKind.REGISTERS or region.stride_bytes <= region.width_bytes:
        return region.size_bytes
    registers = (region.size_bytes - region.width_bytes) // region.stride_bytes + 1
    return max(0, registers) * region.width_bytes


def planted_bytes(
    nonce: int | None, device: ManifestDevice, region: ManifestRegion, limit_bytes: int
) -> bytes | None:
    """Return the first bytes, ``limit_bytes`` at most, that follow from the nonce.

    None for a device whose content the farm did not plant; only sample devices answer to a nonce.
    """
    match = _SAMPLE_NAME.fullmatch(device.name)
    if nonce is None or device.driver != SAMPLE_DRIVER or match is None:
        return None
    if full_size_bytes(region) != region.size_bytes:
        return None
    return expected_bytes(
        nonce, int(match[1]), region.index, min(region.size_bytes, max(0, limit_bytes))
    )
