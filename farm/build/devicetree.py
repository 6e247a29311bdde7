"""Compiles a board's device tree source: the C preprocessor, then dtc; and overlays on top.

`dtc` and `fdtoverlay` are those of the Debian package device-tree-compiler, both made with libfdt.
"""

from __future__ import annotations

import tempfile
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
    return keys.DevicetreeInput(keys.sha256(source.read_bytes()), _compiler())


def _compiler() -> str:
    return output(["dtc", "--version"], what="device tree compiler").decode().strip()


def overlay_inputs(overlay: Path, tree_of: str) -> keys.DevicetreeInput:
    """Return what decides a blob of the kernel's source with ``overlay`` on it.

    ``tree_of`` says which kernel's source that is, patches included.
    """
    source = keys.sha256(overlay.read_bytes() + tree_of.encode())
    return keys.DevicetreeInput(source, _compiler())


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


def compile_overlay(text: str, what: str) -> bytes:
    """The overlay's blob; raises BuildError with dtc's words."""
    return output(
        ["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", "-", "-"],
        what=f"device tree overlay {what}",
        data=text.encode(),
    )


def apply_overlay(tree: bytes, overlay: bytes, what: str) -> bytes:
    """The tree with the overlay in it; raises BuildError with fdtoverlay's words."""
    with tempfile.TemporaryDirectory(prefix="farm-overlay-") as name:
        folder = Path(name)
        (folder / "tree.dtb").write_bytes(tree)
        (folder / "overlay.dtbo").write_bytes(overlay)
        output(
            ["fdtoverlay", "-i", "tree.dtb", "-o", "whole.dtb", "overlay.dtbo"],
            what=f"applying the overlay of {what}",
            cwd=folder,
        )
        return (folder / "whole.dtb").read_bytes()
