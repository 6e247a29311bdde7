"""Programs for the board in a few lines of assembly, where it has none that is a static binary."""

from __future__ import annotations

import tempfile
from pathlib import Path

from farm.build.process import output

_COMPILER = "aarch64-linux-gnu-gcc"
_FLAGS = ("-nostdlib", "-static", "-Wl,--build-id=none", "-s", "-x", "assembler")


def program(name: str, source: str, what: str) -> bytes:
    """Return ``source`` as a static ELF binary; raises BuildError with the assembler's words."""
    with tempfile.TemporaryDirectory(prefix=f"farm-{name}-") as folder:
        made = Path(folder) / name
        output(
            [_COMPILER, *_FLAGS, "-", "-o", made.name],
            what=what,
            cwd=made.parent,
            data=source.encode(),
        )
        return made.read_bytes()
