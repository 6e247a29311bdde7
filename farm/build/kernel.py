"""Configures and compiles the kernel in a build folder that is kept between builds.

kbuild knows what depends on what, down to the compiler's command line, so a changed series costs
only what it touches. The result does not depend on who builds, when, or in which folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.build import kconfig, process
from farm.errors import BuildError

TOOLS = (
    "make",
    "gcc",
    "aarch64-linux-gnu-gcc",
    "flex",
    "bison",
    "bc",
    "perl",
    "patch",
    "tar",
    "xz",
)
_STEP = re.compile(r"\s+(?:\[M\] *)?[A-Z][A-Z0-9_]*(?: \[M\])?\s+\S")
# Steps of a build from nothing; used until the build folder knows its own number.
_EXPECTED_STEPS = 1010
_STEPS_FILE = "panic-farm-steps.json"
_BUILD_ID_TYPE = "NT_GNU_BUILD_ID"

PRODUCTS = {
    "Image": "arch/arm64/boot/Image",
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "config": ".config",
}


@dataclass(frozen=True)
class Architecture:
    """kbuild's name of it, and the prefix of its compiler's tools."""

    name: str
    prefix: str

    @property
    def compiler(self) -> str:
        """The C compiler."""
        return f"{self.prefix}gcc"


ARM64 = Architecture("arm64", "aarch64-linux-gnu-")
X86_64 = Architecture("x86_64", "x86_64-linux-gnu-")


@dataclass(frozen=True)
class Compiled:
    """What a kernel build is known by."""

    build_id: str
    release: str
    seconds: float


def compiler_version(architecture: Architecture = ARM64) -> str:
    """Return the compiler's own name and version."""
    told = process.output([architecture.compiler, "--version"], what="compiler").decode()
    return told.splitlines()[0]


class KernelBuild:
    """One source tree with one build folder; ``log`` takes what make says.

    With ``warnings`` the compiler tells more (W=1, without what kernel-doc says there); with
    ``compiled``, a folder, ccache keeps there what was compiled before.
    """

    def __init__(
        self,
        tree: Path,
        out: Path,
        log: Path,
        jobs: int,
        *,
        architecture: Architecture = ARM64,
        warnings: bool = False,
        compiled: Path | None = None,
    ) -> None:
        self._variables = [
            f"ARCH={architecture.name}",
            f"CROSS_COMPILE={architecture.prefix}",
            "LOCALVERSION=",
        ]
        # kernel-doc would look at every file that is compiled, for an eighth of the time.
        self._variables += ["W=1", "cmd_checkdoc="] if warnings else []
        self._env = _reproducible()
        if compiled is not None:
            self._variables.append(f"CC=ccache {architecture.compiler}")
            self._env |= ccache(compiled)
        self._architecture = architecture.name
        self._tree = tree
        self._out = out
        self._log = log
        self._jobs = jobs

    def configure(
        self,
        fragment: Path,
        *,
        complete: bool = True,
        on_defconfig: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Write ``.config``: nothing but what ``fragment`` asks for and what that needs.

        ``on_defconfig``: also what the kernel has by default, and what of the architecture's
        defconfig is built in. With ``complete``, an option that the kernel does not have is a
        ``BuildError``. ``on_line`` gets every line that make writes.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        start, asked = "allnoconfig", fragment
        if on_defconfig:
            defconfig = self._tree / "arch" / self._architecture / "configs" / "defconfig"
            start, asked = "alldefconfig", self._out / "on-defconfig.config"
            text = kconfig.built_in(defconfig.read_text())
            asked.write_text(kconfig.on_top(text, fragment.read_text(), fragment.name))
        self._make(
            [start],
            "kernel configuration",
            on_line=on_line,
            KCONFIG_ALLCONFIG=str(asked.resolve()),
        )
        if complete:
            kconfig.check(fragment, self._out / ".config")

    def compile(
        self,
        progress: Callable[[int, int | None], None],
        *,
        on_line: Callable[[str], None] | None = None,
        targets: tuple[str, ...] = ("Image", "vmlinux"),
    ) -> Compiled:
        """Build ``targets``; ``progress`` gets steps done and, from nothing, all steps.

        ``on_line`` gets every line that make writes.
        """
        from_nothing = not (self._out / "vmlinux").exists()
        expected = self._expected_steps() if from_nothing else None
        done = 0

        def each_line(line: str) -> None:
            nonlocal done
            if _STEP.match(line):
                done += 1
                progress(done, expected)
            if on_line is not None:
                on_line(line)

        begin = time.monotonic()
        self._make(list(targets), "kernel build", on_line=each_line)
        seconds = time.monotonic() - begin
        if from_nothing:
            (self._out / _STEPS_FILE).write_text(json.dumps({"steps": done}))
        release = (self._out / "include/config/kernel.release").read_text().strip()
        return Compiled(build_id(self._out / "vmlinux"), release, seconds)

    def compile_objects(self, objects: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Build nothing but ``objects``; ``on_line`` gets every line that make writes."""
        self._make([*objects], "kernel build", on_line=on_line)

    def check_sources(self, objects: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Run sparse over the sources of ``objects``, whether they are built or not."""
        self._make(["C=2", *objects], "sparse", on_line=on_line)

    def copy_products(self, folder: Path) -> None:
        """Copy image, symbols and configuration to ``folder``."""
        for name, place in PRODUCTS.items():
            shutil.copyfile(self._out / place, folder / name)

    def _expected_steps(self) -> int:
        known = self._out / _STEPS_FILE
        if known.is_file():
            return int(json.loads(known.read_text())["steps"])
        return _EXPECTED_STEPS

    def _make(
        self,
        targets: list[str],
        what: str,
        on_line: Callable[[str], None] | None = None,
        **env: str,
    ) -> None:
        # Debug information names source files: by their place in the tree, not by where the
        # cache lies, or the build id would differ from machine to machine.
        prefix_map = f"-fdebug-prefix-map={self._tree}=. -fdebug-prefix-map={self._out}=."
        process.run(
            [
                "make",
                f"--jobs={self._jobs}",
                f"--directory={self._tree}",
                f"O={self._out}",
                *self._variables,
                f"KCFLAGS={prefix_map}",
                f"KAFLAGS={prefix_map}",
                *targets,
            ],
            what=what,
            log=self._log,
            on_line=on_line,
            env={**self._env, **env},
        )


def build_id(vmlinux: Path) -> str:
    """Return the build id in hex from the notes of ``vmlinux``; ``BuildError`` if there is none."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection

    try:
        with vmlinux.open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                if isinstance(section, NoteSection):
                    for note in section.iter_notes():
                        if note["n_type"] == _BUILD_ID_TYPE:
                            return str(note["n_desc"])
    except ELFError as error:
        raise BuildError(f"{vmlinux} is no ELF file: {error}") from error
    raise BuildError(f"{vmlinux} carries no build id")


def default_jobs() -> int:
    """Return how many compilers may run at once: the processors this process may use."""
    return len(os.sched_getaffinity(0))


def ccache(folder: Path) -> dict[str, str]:
    """Return the environment that lets ccache keep its objects in ``folder``, known by content."""
    return {
        "CCACHE_DIR": str(folder),
        "CCACHE_MAXSIZE": "4G",
        "CCACHE_COMPILERCHECK": "content",
        # A tree that is moved along a series has files younger than the compilation.
        "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime,time_macros",
        # Headers are known from what the compiler says of them, or each file that is not there yet
        # would go through the preprocessor once more: a third of the time of a first build.
        "CCACHE_DEPEND": "1",
    }


def _reproducible() -> dict[str, str]:
    return {
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
        "KBUILD_BUILD_USER": "farm",
        "KBUILD_BUILD_HOST": "panic-farm",
        "KBUILD_BUILD_VERSION": "1",
        "SOURCE_DATE_EPOCH": "0",
    }
