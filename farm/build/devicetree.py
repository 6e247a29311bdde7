"""Compiles a board's device tree source: the C preprocessor, then dtc."""

from __future__ import annotations

from pathlib import Path

from farm.build import keys
from farm.build.process import output
from farm.errors import UsageError


def inputs(source: Path) -> keys.DevicetreeInput:
    """Return what decides the blob; raise ``UsageError`` if the board has no source."""
    if not source.is_file():
        raise UsageError(
            f"{source} does not exist", f"a board needs a device tree source: {source.name}"
        )
    version = output(["dtc", "--version"], what="device tree compiler").decode().strip()
    return keys.DevicetreeInput(keys.sha256(source.read_bytes()), version)


def compile_blob(source: Path, include: tuple[Path, ...] = ()) -> bytes:
    """Return the blob of ``source``, with symbols so that overlays fit.

    ``include`` are folders of what it includes, beside its own. Raises ``BuildError`` with the
    file and line of what is wrong: the preprocessor's line marks tell dtc where it is in the
    original.
    """
    what = f"device tree {source.name}"
    quiet = ["-q"] if include else []
    preprocessed = output(
        [
            *("cpp", "-nostdinc", "-undef", "-D__DTS__", "-x", "assembler-with-cpp"),
            *(f"-I{folder}" for folder in include),
            source.name,
        ],
        what=what,
        cwd=source.parent,
    )
    return output(
        [
            *("dtc", *quiet, "-I", "dts", "-O", "dtb", "-@", "-o", "-"),
            *(word for folder in include for word in ("-i", str(folder))),
            "-",
        ],
        what=what,
        cwd=source.parent,
        data=preprocessed,
    )
