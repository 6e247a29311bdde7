"""Function traces that pstore keeps: records of 24 bytes, and the text that pstorefs makes of them.

Source: struct pstore_ftrace_record in include/linux/pstore.h, pstore_ftrace_combine_log() in
fs/pstore/ftrace.c, pstore_ftrace_seq_start() and _show() in fs/pstore/inode.c of Linux 6.12.
Left out: 32-bit kernels, which keep shorter records, and those that keep the processor's number in
the address.  Names of functions are known to the kernel only: without them addresses stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RECORD_BYTES", "TraceEntry", "combine", "decode_trace", "render"]

RECORD_BYTES = 24
_CPU_BITS = 8


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """A call: from `parent_ip` to `ip`; `timestamp` counts the entries of the processor `cpu`."""

    cpu: int
    timestamp: int
    ip: int
    parent_ip: int


def combine(logs: Sequence[bytes]) -> bytes:
    """Merge the logs of several processors by time stamp, as the kernel does."""
    merged = np.zeros((0, 3), dtype="<u8")
    for log in logs:
        # A log is read from its end: what is too short for a record stands at its beginning.
        more = np.frombuffer(log[len(log) % RECORD_BYTES :], dtype="<u8").reshape(-1, 3)
        merged = _merge(merged, more)
    return merged.tobytes()


Words = npt.NDArray[np.uint64]


def _merge(left: Words, right: Words) -> Words:
    """Two lists of which the earlier head goes first, the right one's if they are equal."""
    # With lists that are not sorted, as after damage, a head waits for the one before it: the
    # running maximum is what it is compared by.
    keys = [np.maximum.accumulate(one[:, 2] >> _CPU_BITS) for one in (right, left)]
    order = np.argsort(np.concatenate(keys), kind="stable")
    return np.concatenate([right, left])[order]


def decode_trace(data: bytes, *, skip: int | None = None) -> tuple[TraceEntry, ...]:
    """The entries; `skip` bytes at the beginning are no whole record (None: what is over)."""
    first = len(data) % RECORD_BYTES if skip is None else skip
    count = max(0, len(data) - first) // RECORD_BYTES
    words = np.frombuffer(data[first : first + count * RECORD_BYTES], dtype=np.uint8)
    return tuple(
        TraceEntry(int(ts) & (1 << _CPU_BITS) - 1, int(ts) >> _CPU_BITS, int(ip), int(parent))
        for ip, parent, ts in words.view("<u8").reshape(-1, 3)
    )


def render(
    entries: Sequence[TraceEntry], name_of: Callable[[int, bool], str] | None = None
) -> bytes:
    """The file's text in pstorefs; `name_of` gives a function's name, with its offset or not."""
    if name_of is None:

        def name_of(address: int, with_offset: bool) -> str:
            return f"{address:#x}"

    lines = (
        f"CPU:{one.cpu} ts:{one.timestamp} {one.ip:08x}  {one.parent_ip:08x}  "
        f"{name_of(one.ip, False)} <- {name_of(one.parent_ip, True)}\n"
        for one in entries
    )
    return "".join(lines).encode()
