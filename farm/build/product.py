"""What a build gives: a folder of files and ``build.json``, which says what they are made of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farm.build.keys import Inputs, Keys
from farm.errors import BuildError

BUILD_SCHEMA_VERSION = 1
RECORD = "build.json"


@dataclass(frozen=True)
class Product:
    """A finished build; ``record`` is the content of its ``build.json``."""

    folder: Path
    record: dict[str, Any]
    cached: bool

    def as_json(self) -> str:
        """Return what ``farm build --json`` prints."""
        return json.dumps(
            {**self.record, "folder": str(self.folder), "cached": self.cached}, indent=2
        )


def write_record(
    folder: Path, inputs: Inputs, names: Keys, kernel: dict[str, Any], stages_s: dict[str, float]
) -> None:
    """Write ``build.json`` for the files that lie in ``folder``."""
    record = {
        "schema_version": BUILD_SCHEMA_VERSION,
        "board": inputs.board,
        "variant": inputs.variant,
        "key": names.product,
        "keys": asdict(names),
        "base": inputs.kernel.base,
        "base_version": inputs.kernel.base_version,
        "kernel_release": kernel["release"],
        "build_id": kernel["build_id"],
        "compiler": inputs.kernel.compiler,
        "patches": [asdict(patch) for patch in inputs.kernel.series],
        "inputs": asdict(inputs),
        "kernel_build_s": kernel["seconds"],
        "stages_s": stages_s,
        "sizes_bytes": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def load(folder: Path, *, cached: bool) -> Product:
    """Return the build in ``folder``; raise ``BuildError`` if its record is damaged."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{folder / RECORD} cannot be read: {error}",
            next_step="build again: farm build --force",
        ) from error
    return Product(folder, record, cached)
