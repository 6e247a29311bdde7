"""The series, checked the way a maintainer would: checkpatch, a build per patch, KUnit.

Works in a tree of its own, so that the trees of ``farm build`` stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from farm.build import cache, kconfig, pipeline, process, series, source
from farm.build.kernel import TOOLS, KernelBuild, default_jobs
from farm.build.progress import BuildProgress
from farm.errors import BuildError

KUNIT_CONFIG = Path("kernel/panicdump/.kunitconfig")
_TOTALS = re.compile(r"total: (\d+) errors, (\d+) warnings, (\d+) checks")
_WARNING = re.compile(
    r"^(?:\.\./|\./)?(?:.*/linux/)?(?P<file>\S+?):\d+(?::\d+)?: (?:warning|error): (?P<what>.*)"
)
_KTAP_TOTALS = re.compile(
    r"Testing complete\. Ran (\d+) tests: (.*)|Test(?:ing)? complete\. Passed: (\d+)"
)
_CHECK_BYTES = 4 << 30


@dataclass(frozen=True)
class Checked:
    """What was checked; reaching it means that nothing was found."""

    base: str
    patches: tuple[str, ...]
    checkpatch: str
    builds: int
    kunit: str


def kernel_check(
    base: Annotated[str, typer.Option(help="Kernel version the series stands on.")] = "6.12",
    jobs: Annotated[int, typer.Option(min=0, help="Compilers at once; 0: one per processor.")] = 0,
    only: Annotated[
        str, typer.Option(help="Only one part: checkpatch, builds or kunit.", metavar="PART")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check the series: checkpatch --strict, every patch builds (W=1), KUnit passes in QEMU."""
    parts = {"checkpatch", "builds", "kunit"}
    if only and only not in parts:
        raise BuildError(
            f"--only: there is no part {only!r}", next_step="checkpatch, builds, kunit"
        )
    request = pipeline.Request(
        board="virtual",
        base=base,
        jobs=jobs or default_jobs(),
        force=False,
        project=pipeline.project_folder(),
        cache=cache.root() / "check",
    )
    with (
        BuildProgress() as progress,
        cache.locked(request.cache, "farm kernel-check", progress.say),
    ):
        result = check(request, {only} if only else parts, progress)
    if as_json:
        print(json.dumps(asdict(result), indent=1))
        return
    print(f"checkpatch --strict: {result.checkpatch or 'not run'}")
    print(f"builds, W=1: {result.builds or 'not run'}")
    print(f"KUnit in QEMU: {result.kunit or 'not run'}")


def check(request: pipeline.Request, parts: set[str], progress: BuildProgress) -> Checked:
    """Run ``parts`` on the series; raises ``BuildError`` with the first patch that has a fault."""
    process.require_tools([*TOOLS, "python3", "qemu-system-aarch64"])
    patches = series.read(request.patches)
    if not patches:
        raise BuildError(f"there is no series in {request.patches}")
    tarball = source.find(request.base)
    log = request.cache / "logs" / f"kernel-check-{request.base}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    progress.stage(f"unpack {tarball.path.name}")
    store = source.unpack(tarball, request.cache, log, progress.advance)
    tree = store / "linux"
    cache.require_space(store, _CHECK_BYTES)
    told, builds, kunit = "", 0, ""
    if "checkpatch" in parts:
        progress.stage("checkpatch --strict")
        series.bring_to(tree, (), store)
        told = _checkpatch(tree, patches, log, progress.advance)
    if "builds" in parts:
        builds = _build_each(request, tree, store, patches, log, progress)
    if "kunit" in parts:
        progress.stage("KUnit in QEMU")
        series.bring_to(tree, patches, store)
        kunit = _kunit(request, tree, store / "out-kunit", log)
    return Checked(request.base, tuple(p.name for p in patches), told, builds, kunit)


def _checkpatch(
    tree: Path,
    patches: tuple[series.Patch, ...],
    log: Path,
    progress: Callable[[int, int | None], None],
) -> str:
    """Return the sum of what checkpatch counted, all of it zero."""
    for number, patch in enumerate(patches):
        progress(number, len(patches))
        lines: list[str] = []
        command = ["perl", "scripts/checkpatch.pl", "--strict", "--color=never", str(patch.path)]
        process.run(
            command,
            what=f"checkpatch {patch.name}",
            log=log,
            cwd=tree,
            on_line=lines.append,
        )
        counted = _TOTALS.search("".join(lines))
        # An exit code of 0 is not enough: checkpatch tells checks apart only in its totals.
        if counted is None or any(int(count) for count in counted.groups()):
            raise BuildError(f"checkpatch {patch.name}:\n{''.join(lines)}", log=str(log))
    return f"{len(patches)} patches, 0 errors, 0 warnings, 0 checks"


def _build_each(
    request: pipeline.Request,
    tree: Path,
    store: Path,
    patches: tuple[series.Patch, ...],
    log: Path,
    progress: BuildProgress,
) -> int:
    """Build the base and each step of the series; return how many builds that were.

    A warning that the base has, too, is not the series' fault.
    """
    out = store / "out-builds"
    out.mkdir(parents=True, exist_ok=True)
    fragment = out / "fragment.config"
    extra = request.project / "kernel-patches" / "configs" / "check.config"
    fragment.write_text(kconfig.merge(*request.fragments, extra))
    of_the_base: set[tuple[str, str]] = set()
    touched = {name for patch in patches for name in patch.files}
    for count in range(len(patches) + 1):
        name = patches[count - 1].name if count else "the base source"
        progress.stage(f"build {name}")
        series.bring_to(tree, patches[:count], store)
        found: dict[tuple[str, str], str] = {}

        def on_line(line: str, found: dict[tuple[str, str], str] = found) -> None:
            told = _WARNING.match(line)
            if told is not None and any(told["file"].endswith(file) for file in touched):
                found[(told["file"], told["what"])] = line.rstrip()

        work = KernelBuild(tree, out, log, request.jobs, warnings=True)
        # The board's options come with the series: early patches do not have them all.
        work.configure(fragment, complete=count == len(patches))
        work.compile(progress.advance, on_line=on_line, modules=True)
        if not count:
            of_the_base = set(found)
        if new := [line for what, line in found.items() if what not in of_the_base]:
            raise BuildError(f"{name} builds with warnings:\n" + "\n".join(new), log=str(log))
    return len(patches)


def _kunit(request: pipeline.Request, tree: Path, out: Path, log: Path) -> str:
    """Return the totals line of the kernel's own KUnit runner."""
    lines: list[str] = []
    process.run(
        [
            "python3",
            "tools/testing/kunit/kunit.py",
            "run",
            "--arch=arm64",
            "--cross_compile=aarch64-linux-gnu-",
            f"--kunitconfig={KUNIT_CONFIG}",
            f"--build_dir={out}",
            f"--jobs={request.jobs}",
            "--timeout=300",
        ],
        what="KUnit",
        log=log,
        cwd=tree,
        on_line=lines.append,
    )
    totals = [line.strip() for line in lines if _KTAP_TOTALS.search(line)]
    ran = re.search(r"Ran (\d+) tests: passed: (\d+)(?:$|[^0-9])", totals[-1]) if totals else None
    if ran is None or not int(ran[1]) or ran[1] != ran[2]:
        raise BuildError("KUnit: not all tests passed:\n" + "".join(lines[-40:]), log=str(log))
    return f"{ran[2]} tests passed"
