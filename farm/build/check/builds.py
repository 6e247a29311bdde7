"""The steps that compile: the base source, every patch, the whole series, and the series left out.

All builds tell more warnings than usual (W=1), and what the base source has of them is no fault.
The base source is built for arm64 alone. On x86_64 nothing is left of the series but code that is
the same on both, so that what counts there is what is said of files that the series touches.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farm.build import kconfig, keys, process
from farm.build.check import complaints, sizes
from farm.build.check.complaints import Complaint
from farm.build.check.ledger import Ledger, Outcome, Step
from farm.build.check.workshop import MODULES, OFF, Workshop
from farm.build.kernel import ARM64, Architecture, KernelBuild, compiler_version
from farm.errors import BuildError

_TARGETS = ("vmlinux", "modules")
_UNFINISHED = "panic-farm-unfinished"
_CLEAN = "panic-farm-clean"
_CONFIGURED = "panic-farm-configured"
_FRAGMENT = "check.config"


def base_build(work: Workshop) -> Step:
    """The base source on arm64: what it warns of, and how large it is."""

    def act(log: Path) -> Outcome:
        # Every file has to be compiled, or what it warns of would be laid at the series' door.
        # What an earlier run has compiled ccache gives back, with its warnings.
        out = work.out(ARM64.name)
        shutil.rmtree(out, ignore_errors=True)
        found = compile_kernel(work, ARM64, MODULES, 0, log, whole=False)
        _mark_clean(work, ARM64)
        data = {
            "complaints": _plain(found),
            "sizes": sizes.read(out),
            "options": kconfig.parse((out / ".config").read_text(), ".config"),
        }
        return Outcome(f"{len(data['sizes']) - 1} objects", data=data)

    return Step(work.base, "base", f"build {ARM64.name}", _base_key(work), act)


def base_sparse(work: Workshop) -> Step:
    """What sparse says of the files that the series will touch."""

    def act(log: Path) -> Outcome:
        work.go_to(0)
        found, checked = _sparse(work, ARM64, log)
        return Outcome(f"{checked} files", data={"complaints": _plain(found)})

    return Step(work.base, "base", f"sparse {ARM64.name}", _base_sparse_key(work), act)


def each_patch(work: Workshop, ledger: Ledger) -> list[Step]:
    """Every patch by itself, on arm64."""

    def step(count: int) -> Step:
        def act(log: Path) -> Outcome:
            found = compile_kernel(work, ARM64, MODULES, count, log, whole=count == work.whole)
            return Outcome("", _new_in_build(work, ledger, ARM64, found))

        name = work.patches[count - 1].name
        return Step(work.base, "builds", name, work.build_key("patch", ARM64, MODULES, count), act)

    return [step(count) for count in range(1, work.whole + 1)]


def whole(work: Workshop, ledger: Ledger, architecture: Architecture, mode: str) -> Step:
    """The whole series, with all options that the configuration asks for."""

    def act(log: Path) -> Outcome:
        found = compile_kernel(work, architecture, mode, work.whole, log, whole=True)
        return Outcome("", _new_in_build(work, ledger, architecture, found))

    key = work.build_key("whole", architecture, mode)
    return Step(work.base, "whole", f"{architecture.name} ={mode}", key, act)


def sparse(work: Workshop, ledger: Ledger, architecture: Architecture) -> Step:
    """sparse over every file that the series touches."""

    def act(log: Path) -> Outcome:
        built = compile_kernel(work, architecture, MODULES, work.whole, log, whole=True)
        # Its own step says what that said.
        _new_in_build(work, ledger, architecture, built)
        found, checked = _sparse(work, architecture, log)
        before = _known(ledger, _base_sparse_key(work))
        return Outcome(f"{checked} files", _new(found, before))

    key = work.build_key("sparse", architecture, MODULES) + _sparse_version()
    return Step(work.base, "sparse", architecture.name, key, act)


def off(work: Workshop, ledger: Ledger) -> Step:
    """The series with its options off, on arm64: no warning, and no object that grows.

    The rule: the configurations differ in nothing but options that the base does not have, and
    no loaded section of any object, nor of vmlinux but for kallsyms, is larger than before.
    """

    def act(log: Path) -> Outcome:
        before = _known(ledger, _base_key(work))
        out = work.out(ARM64.name)
        # The test devices have been built as a module here, with the options on.
        sizes.forget_others(out, before["sizes"])
        found = compile_kernel(work, ARM64, OFF, work.whole, log, whole=True)
        faults = list(_new_in_build(work, ledger, ARM64, found))
        options = kconfig.parse((out / ".config").read_text(), ".config")
        faults += [
            f"the configuration differs: {name} is {options.get(name, 'n')}, "
            f"was {before['options'].get(name, 'n')}"
            for name in sorted(options.keys() | before["options"].keys())
            if options.get(name, "n") != before["options"].get(name, "n")
        ]
        now = sizes.read(out)
        faults += sizes.growth(before["sizes"], now)
        less = [name for name in sizes.smaller(before["sizes"], now) if name != "vmlinux"]
        detail = f"{len(now) - 1} objects, no byte more"
        detail += f", less in {', '.join(less)}" if less else ""
        return Outcome(detail, tuple(faults))

    key = work.build_key("off", ARM64, OFF)
    return Step(work.base, "off", ARM64.name, key, act)


def off_in_files(work: Workshop, ledger: Ledger, architecture: Architecture) -> Step:
    """The series with its options off, on another architecture: the base's files that it touches.

    Sizes are compared on arm64, and what is left of these files is the same here.
    """

    def act(log: Path) -> Outcome:
        out = work.out(architecture.name)
        if not (out / "vmlinux").is_file():
            compile_kernel(work, architecture, MODULES, work.whole, log, whole=True)
        objects = [name for name, source in _objects(work, out) if work.in_base(source)]
        lines: list[str] = []
        with _started(work, architecture, OFF, work.whole, log) as build:
            _configure(work, build, architecture, OFF, lines.append, complete=True)
            build.compile_objects(objects, lines.append)
        found = _complaints(work, lines)
        faults = _new_in_build(work, ledger, architecture, found)
        return Outcome(f"{len(objects)} objects", faults)

    key = work.build_key("off", architecture, OFF)
    return Step(work.base, "off", f"{architecture.name}, touched files", key, act)


def _base_key(work: Workshop) -> str:
    return work.build_key("base", ARM64, MODULES, 0)


def _base_sparse_key(work: Workshop) -> str:
    files = "\n".join(name for name in work.sources if work.in_base(name))
    return work.key(f"base sparse {ARM64.name} {files}", _base_key(work), count=0)


def _sparse_version() -> str:
    told = process.output(["sparse", "--version"], what="sparse").decode().strip()
    return "-sparse-" + "".join(c for c in told if c.isalnum() or c in ".-")


def compile_kernel(
    work: Workshop,
    architecture: Architecture,
    mode: str,
    count: int,
    log: Path,
    *,
    whole: bool,
    targets: tuple[str, ...] = _TARGETS,
) -> list[Complaint]:
    """Build the first ``count`` patches; return all that was said of files and of the kernel.

    What is not compiled is not complained of again. So files that the series touches are compiled
    in any case unless the last build here is known to have said nothing new, and all of them if it
    did not come to its end. With ``whole`` the kernel must have all options that are asked for.
    """
    lines: list[str] = []

    def on_line(line: str) -> None:
        if "warning" in line or "error" in line or "WARNING" in line or "ERROR" in line:
            lines.append(line)

    with _started(work, architecture, mode, count, log) as build:
        _configure(work, build, architecture, mode, on_line, complete=whole)
        build.compile(work.progress.advance, on_line=on_line, targets=targets)
    return _complaints(work, lines)


@contextmanager
def _started(
    work: Workshop, architecture: Architecture, mode: str, count: int, log: Path
) -> Iterator[KernelBuild]:
    """Make tree and build folder ready; a block that fails leaves a mark for the next build."""
    work.go_to(count)
    out = work.out(architecture.name)
    unfinished = out / _UNFINISHED
    if unfinished.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    (out / _FRAGMENT).write_text(work.options(architecture, mode))
    clean = out / _CLEAN
    if not clean.exists():
        for name in work.sources:
            (out / name).with_suffix(".o").unlink(missing_ok=True)
    clean.unlink(missing_ok=True)
    yield work.build(architecture, log)
    unfinished.unlink()


def _configure(
    work: Workshop,
    build: KernelBuild,
    architecture: Architecture,
    mode: str,
    on_line: Callable[[str], None],
    *,
    complete: bool,
) -> None:
    """Write the configuration, unless it would come out as it is.

    Most patches change nothing of what Kconfig asks, and it takes some seconds, in which one
    processor has nothing to do: Kconfig tries what the compiler can.
    """
    out = work.out(architecture.name)
    inputs = [
        work.options(architecture, mode),
        work.kconfig(),
        compiler_version(architecture),
        complete,
    ]
    key, known = keys.sha256(json.dumps(inputs).encode()), out / _CONFIGURED
    if known.is_file() and known.read_text() == key:
        return
    known.unlink(missing_ok=True)
    build.configure(out / _FRAGMENT, complete=complete, on_line=on_line)
    known.write_text(key)


def _complaints(work: Workshop, lines: list[str]) -> list[Complaint]:
    # allnoconfig speaks of what the fragments ask for and an early patch does not have yet.
    return [
        one for one in complaints.read(lines, str(work.tree)) if not one.file.endswith(".config")
    ]


def _of_the_series(work: Workshop, found: list[Complaint]) -> list[Complaint]:
    """What is said of files that the series touches, and of the kernel as a whole."""
    return [one for one in found if one.file in work.sources or not one.file]


def _objects(work: Workshop, out: Path) -> list[tuple[str, str]]:
    """The objects in ``out`` that come from files that the series touches, each with its file."""
    found = [
        (str(Path(name).with_suffix(".o")), name) for name in work.sources if name.endswith(".c")
    ]
    return [
        (name, source)
        for name, source in found
        if (work.tree / source).is_file() and (out / name).is_file()
    ]


def _sparse(work: Workshop, architecture: Architecture, log: Path) -> tuple[list[Complaint], int]:
    objects = [name for name, _ in _objects(work, work.out(architecture.name))]
    lines: list[str] = []
    failed: BuildError | None = None
    try:
        work.build(architecture, log).check_sources(objects, lines.append)
    except BuildError as error:
        failed = error
    found = complaints.read(lines, str(work.tree), work.sources)
    # sparse ends with an error where it does not understand the base source, too.
    if failed is not None and not found:
        raise failed
    return found, len(objects)


def _new_in_build(
    work: Workshop, ledger: Ledger, architecture: Architecture, found: list[Complaint]
) -> tuple[str, ...]:
    """Return what the base source did not say; if that is nothing, the build folder is clean."""
    if architecture is not ARM64:
        found = _of_the_series(work, found)
    faults = _new(found, _known(ledger, _base_key(work)))
    if not faults:
        _mark_clean(work, architecture)
    return faults


def _mark_clean(work: Workshop, architecture: Architecture) -> None:
    """The last build has said nothing that a later one would have to say again."""
    (work.out(architecture.name) / _CLEAN).touch()


def _new(found: list[Complaint], before: dict[str, Any]) -> tuple[str, ...]:
    known = [Complaint(*one) for one in before["complaints"]]
    return tuple(str(one) for one in complaints.new(found, known))


def _known(ledger: Ledger, key: str) -> dict[str, Any]:
    record = ledger.known(key)
    if record is None:
        raise BuildError("the base source did not build: there is nothing to compare with")
    data: dict[str, Any] = record["data"]
    return data


def _plain(found: list[Complaint]) -> list[list[str | int]]:
    return [[one.file, one.line, one.text] for one in found]
