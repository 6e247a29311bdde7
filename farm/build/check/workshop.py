"""The trees, configurations and keys that the steps of one base version work with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from farm.build import kconfig, keys, pipeline, series, source
from farm.build.kernel import Architecture, KernelBuild, compiler_version
from farm.build.progress import BuildProgress

# Raise it when a step does something else than before with the same inputs.
RECIPE = 2
MODULES, BUILT_IN, OFF = "m", "y", "n"
_KEY_DIGITS = 24


@dataclass(frozen=True)
class Workshop:
    """One base version: its tree, which moves along the series, and a build folder per purpose."""

    request: pipeline.Request
    tarball: source.Tarball
    store: Path
    patches: tuple[series.Patch, ...]
    progress: BuildProgress

    @property
    def base(self) -> str:
        """The base version."""
        return self.request.base

    @property
    def tree(self) -> Path:
        """The source tree."""
        return self.store / "linux"

    @property
    def compiled(self) -> Path:
        """ccache's folder."""
        return self.request.cache / "ccache"

    def out(self, purpose: str) -> Path:
        """The build folder for ``purpose``."""
        return self.store / f"out-{purpose}"

    def go_to(self, count: int) -> None:
        """Make the tree hold the first ``count`` patches."""
        series.bring_to(self.tree, self.patches[:count], self.store)

    @property
    def whole(self) -> int:
        """The number of patches."""
        return len(self.patches)

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """The files that the series touches."""
        return tuple(sorted({name for patch in self.patches for name in patch.files}))

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Those of them that are C."""
        return tuple(name for name in self.touched if name.endswith((".c", ".h")))

    def kconfig(self) -> dict[str, str]:
        """Return the Kconfig files that the series touches, as the tree has them now."""
        files = {
            name: self.tree / name for name in self.touched if Path(name).name.startswith("Kconfig")
        }
        return {name: path.read_text() for name, path in files.items() if path.is_file()}

    def in_base(self, name: str) -> bool:
        """Say whether the base source has the file, which the series touches."""
        return (self.store / "pristine" / name).is_file()

    def options(self, architecture: Architecture, mode: str) -> str:
        """Return the fragments of ``mode`` for ``architecture``, merged.

        ``m``: the test devices are a module; ``y``: they are built in; ``n``: no panicdump at all.
        """
        folder = self.request.project / "kernel-patches" / "configs"
        more = [
            folder / "check.config",
            folder / f"check-{self.base}.config",
            folder / f"check-{architecture.name}.config",
            folder / f"check-{architecture.name}-{self.base}.config",
        ]
        if mode != MODULES:
            more.append(folder / ("check-y.config" if mode == BUILT_IN else "stock.config"))
        found = [path for path in more if path.is_file()]
        return kconfig.merge(*self.request.fragments, *found)

    def build(self, architecture: Architecture, log: Path) -> KernelBuild:
        """Return the build of ``architecture``, with warnings."""
        return KernelBuild(
            self.tree,
            self.out(architecture.name),
            log,
            self.request.jobs,
            architecture=architecture,
            warnings=True,
            compiled=self.compiled,
        )

    def key(self, what: str, *inputs: str, count: int | None = None) -> str:
        """Return the key of a step on the first ``count`` patches (None: all) and ``inputs``."""
        patches = self.patches if count is None else self.patches[:count]
        parts = [
            RECIPE,
            what,
            self.tarball.version,
            self.tarball.size_bytes,
            [patch.identity.sha256 for patch in patches],
            list(inputs),
        ]
        return keys.sha256(json.dumps(parts).encode())[:_KEY_DIGITS]

    def build_key(
        self, what: str, architecture: Architecture, mode: str, count: int | None = None
    ) -> str:
        """Return the key of a build."""
        return self.key(
            f"{what} {architecture.name} {mode}",
            self.options(architecture, mode),
            compiler_version(architecture),
            count=count,
        )
