"""A console with its timing: what a virtual board said over some panics, and when.

    python -m tests.figures.console_recording [--lg-env FILE] [--cycles 2]

records it anew. The file is xz; in it, for each piece as it came off the line, u32 microseconds
since the one before, u32 length, both little-endian, and the bytes. The first piece follows the
power.
"""

from __future__ import annotations

import argparse
import lzma
import struct
import time
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("console.xz")
_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class Piece:
    """``data`` came so many seconds after the piece before."""

    after_s: float
    data: bytes


def read_recording(path: Path = FILE) -> list[Piece]:
    """The pieces of a recording, in order."""
    data = lzma.decompress(path.read_bytes())
    pieces, at = [], 0
    while at < len(data):
        after_us, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        pieces.append(Piece(after_us / 1e6, data[at : at + length]))
        at += length
    return pieces


def write_recording(path: Path, pieces: list[Piece]) -> None:
    """Store a recording."""
    plain = b"".join(
        _HEAD.pack(round(one.after_s * 1e6), len(one.data)) + one.data for one in pieces
    )
    path.write_bytes(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME))


def record(lg_env: Path, cycles: int) -> list[Piece]:
    """Panic a board so often, and return what it said from the power on."""
    # Labgrid is not needed to read one.
    from farm.bench.environment import open_bench
    from tests.bench.virtual_board import panicked

    pieces: list[Piece] = []
    with open_bench(lg_env) as bench:
        stream, feed = bench.console.stream, bench.console.stream.feed
        bench.strategy.transition("off")
        last = time.monotonic()

        def noting(data: bytes) -> None:
            nonlocal last
            now = time.monotonic()
            pieces.append(Piece(now - last, bytes(data)))
            last = now
            feed(data)

        stream.feed = noting  # type: ignore[method-assign]
        bench.console.reopen()
        for _ in range(cycles):
            panicked(bench, "sysrq-c")
        bench.safe_state()
    return pieces


def main() -> None:
    """Record and store."""
    parser = argparse.ArgumentParser(prog="python -m tests.figures.console_recording")
    parser.add_argument("--lg-env", type=Path, default=Path("devices/virtual.yaml"))
    parser.add_argument("--cycles", type=int, default=2)
    asked = parser.parse_args()
    pieces = record(asked.lg_env, asked.cycles)
    write_recording(FILE, pieces)
    size = sum(len(one.data) for one in pieces)
    span_s = sum(one.after_s for one in pieces)
    print(f"{len(pieces)} pieces, {size} bytes in {span_s:.1f} s: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
