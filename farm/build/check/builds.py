"""The steps that compile: the base source, every patch, the whole series, and the series left out.

All builds tell more warnings than usual (W=1), and what the base source has of them is no fault.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from farm.build import kconfig, process
from farm.build.check import complaints, sizes
from farm.build.check.complaints import Complaint
from farm.build.check.ledger import Ledger, Outcome, Step
from farm.build.check.workshop import MODULES, OFF, Workshop
from farm.build.kernel import ARM64, Architecture
from farm.errors import BuildError

_TARGETS = ("vmlinux", "modules")
_UNFINISHED = "panic-farm-unfinished"


def base_build(work: Workshop, architecture: Architecture) -> Step:
    """The base source: what it warns of, and how large it is."""

    def act(log: Path) -> Outcome:
        # Every file has to be compiled, or what it warns of would be laid at the series' door.
        # What an earlier run has compiled ccache gives back, with its warnings.
        shutil.rmtree(work.out(architecture.name), ignore_errors=True)
        found = _compile(work, architecture, MODULES, 0, log, whole=False)
        out = work.out(architecture.name)
        data = {
            "complaints": _plain(found),
            "sizes": sizes.read(out),
            "options": kconfig.parse((out / ".config").read_text(), ".config"),
        }
        return Outcome(f"{len(data['sizes']) - 1} objects", data=data)

    return Step(work.base, "base", f"build {architecture.name}", _base_key(work, architecture), act)


def base_sparse(work: Workshop, architecture: Architecture) -> Step:
    """What sparse says of the files that the series will touch."""

    def act(log: Path) -> Outcome:
        work.go_to(0)
        found, checked = _sparse(work, architecture, log)
        return Outcome(f"{checked} files", data={"complaints": _plain(found)})

    return Step(
        work.base,
        "base",
        f"sparse {architecture.name}",
        _base_sparse_key(work, architecture),
        act,
    )


def each_patch(work: Workshop, ledger: Ledger) -> list[Step]:
    """Every patch by itself, on arm64."""

    def step(count: int) -> Step:
        def act(log: Path) -> Outcome:
            found = _compile(work, ARM64, MODULES, count, log, whole=count == work.whole)
            return _judged(found, _known(ledger, _base_key(work, ARM64)), "")

        name = work.patches[count - 1].name
        return Step(work.base, "builds", name, work.build_key("patch", ARM64, MODULES, count), act)

    return [step(count) for count in range(1, work.whole + 1)]


def whole(work: Workshop, ledger: Ledger, architecture: Architecture, mode: str) -> Step:
    """The whole series, with all options that the configuration asks for."""

    def act(log: Path) -> Outcome:
        found = _compile(work, architecture, mode, work.whole, log, whole=True)
        return _judged(found, _known(ledger, _base_key(work, architecture)), "")

    key = work.build_key("whole", architecture, mode)
    return Step(work.base, "whole", f"{architecture.name} ={mode}", key, act)


def sparse(work: Workshop, ledger: Ledger, architecture: Architecture) -> Step:
    """sparse over every file that the series touches."""

    def act(log: Path) -> Outcome:
        _compile(work, architecture, MODULES, work.whole, log, whole=True)
        found, checked = _sparse(work, architecture, log)
        before = _known(ledger, _base_sparse_key(work, architecture))
        return _judged(found, before, f"{checked} files")

    key = work.build_key("sparse", architecture, MODULES) + _sparse_version()
    return Step(work.base, "sparse", architecture.name, key, act)


def off(work: Workshop, ledger: Ledger, architecture: Architecture) -> Step:
    """The series with its options off: no warning, and no object that grows.

    The rule: the configurations differ in nothing but options that the base does not have, and
    no loaded section of any object, nor of vmlinux but for kallsyms, is larger than before.
    """

    def act(log: Path) -> Outcome:
        before = _known(ledger, _base_key(work, architecture))
        out = work.out(architecture.name)
        # The test devices have been built as a module here, with the options on.
        sizes.forget_others(out, before["sizes"])
        found = _compile(work, architecture, OFF, work.whole, log, whole=True)
        faults = list(_judged(found, before, "").faults)
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

    key = work.build_key("off", architecture, OFF)
    return Step(work.base, "off", architecture.name, key, act)


def _base_key(work: Workshop, architecture: Architecture) -> str:
    return work.build_key("base", architecture, MODULES, 0)


def _base_sparse_key(work: Workshop, architecture: Architecture) -> str:
    files = "\n".join(name for name in work.sources if work.in_base(name))
    return work.key(
        f"base sparse {architecture.name} {files}", _base_key(work, architecture), count=0
    )


def _sparse_version() -> str:
    told = process.output(["sparse", "--version"], what="sparse").decode().strip()
    return "-sparse-" + "".join(c for c in told if c.isalnum() or c in ".-")


def _compile(
    work: Workshop,
    architecture: Architecture,
    mode: str,
    count: int,
    log: Path,
    *,
    whole: bool,
) -> list[Complaint]:
    """Build the first ``count`` patches; return all that was said of files and of the kernel.

    Files that the series touches are compiled in any case, and all of them after a build that did
    not come to its end: what it said of files is lost. With ``whole`` the kernel must have all
    options that are asked for.
    """
    work.go_to(count)
    out = work.out(architecture.name)
    unfinished = out / _UNFINISHED
    if unfinished.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    fragment = out / "check.config"
    fragment.write_text(work.options(architecture, mode))
    for name in work.sources:
        (out / name).with_suffix(".o").unlink(missing_ok=True)
    lines: list[str] = []

    def on_line(line: str) -> None:
        if "warning" in line or "error" in line or "WARNING" in line or "ERROR" in line:
            lines.append(line)

    build = work.build(architecture, log)
    build.configure(fragment, complete=whole, on_line=on_line)
    build.compile(work.progress.advance, on_line=on_line, targets=_TARGETS)
    unfinished.unlink()
    # allnoconfig speaks of what the fragments ask for and an early patch does not have yet.
    return [
        one for one in complaints.read(lines, str(work.tree)) if not one.file.endswith(".config")
    ]


def _sparse(work: Workshop, architecture: Architecture, log: Path) -> tuple[list[Complaint], int]:
    out = work.out(architecture.name)
    objects = [
        str(Path(name).with_suffix(".o"))
        for name in work.sources
        if name.endswith(".c")
        and (work.tree / name).is_file()
        and (out / name).with_suffix(".o").is_file()
    ]
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


def _judged(found: list[Complaint], before: dict[str, Any], detail: str) -> Outcome:
    known = [Complaint(*one) for one in before["complaints"]]
    return Outcome(detail, tuple(str(one) for one in complaints.new(found, known)))


def _known(ledger: Ledger, key: str) -> dict[str, Any]:
    record = ledger.known(key)
    if record is None:
        raise BuildError("the base source did not build: there is nothing to compare with")
    data: dict[str, Any] = record["data"]
    return data


def _plain(found: list[Complaint]) -> list[list[str | int]]:
    return [[one.file, one.line, one.text] for one in found]
