"""The steps that compile nothing: does it apply, is the style kept, are its papers right?"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

from farm.build import process, series
from farm.build.check import complaints
from farm.build.check.ledger import Ledger, Outcome, Step
from farm.build.check.workshop import Workshop
from farm.errors import BuildError

_BINDINGS = "Documentation/devicetree/bindings/"


def applies(work: Workshop) -> Step:
    """Every patch applies to what the patches before it have left, without fuzz."""

    def act(_: Path) -> Outcome:
        with series.staged(work.tree, work.patches, work.store):
            return Outcome(f"{work.whole} patches, no fuzz")

    return Step(work.base, "apply", "the series", work.key("apply"), act)


def checkpatch(work: Workshop) -> list[Step]:
    """checkpatch --strict, patch by patch: no error, no warning, no check."""

    def step(patch: series.Patch) -> Step:
        def act(log: Path) -> Outcome:
            lines: list[str] = []
            failed: BuildError | None = None
            command = ["perl", "scripts/checkpatch.pl", "--strict", "--show-types"]
            try:
                process.run(
                    [*command, "--color=never", str(patch.path)],
                    what="checkpatch",
                    log=log,
                    cwd=work.tree,
                    on_line=lines.append,
                )
            except BuildError as error:
                failed = error
            try:
                found = complaints.checkpatch("".join(lines))
            except ValueError as error:
                raise failed or BuildError(str(error)) from None
            if failed is not None and not found:
                raise failed
            return Outcome("", tuple(found))

        key = work.key("checkpatch", patch.identity.sha256, count=0)
        return Step(work.base, "checkpatch", patch.name, key, act)

    return [step(patch) for patch in work.patches]


def base_kernel_doc(work: Workshop) -> Step:
    """What kernel-doc says of the files that the series will touch."""

    def act(log: Path) -> Outcome:
        work.go_to(0)
        found = _kernel_doc(work, log)
        data = [[one.file, one.line, one.text] for one in found]
        return Outcome(f"{len(found)} complaints", data={"complaints": data})

    return Step(work.base, "base", "kernel-doc", _base_doc_key(work), act)


def kernel_doc(work: Workshop, ledger: Ledger) -> Step:
    """kernel-doc over every C file that the series touches."""

    def act(log: Path) -> Outcome:
        work.go_to(work.whole)
        record = ledger.known(_base_doc_key(work))
        known = record["data"]["complaints"] if record is not None else []
        before = [complaints.Complaint(*one) for one in known]
        fresh = complaints.new(_kernel_doc(work, log), before)
        return Outcome(f"{len(work.sources)} files", tuple(map(str, fresh)))

    return Step(work.base, "kernel-doc", "touched files", work.key("kernel-doc"), act)


def binding(work: Workshop) -> list[Step]:
    """dtschema and yamllint over every device tree binding that the series touches."""
    try:
        version = metadata.version("dtschema")
    except metadata.PackageNotFoundError:
        raise BuildError(
            "not installed: dtschema", next_step="`make kernel-check` installs what it needs"
        ) from None

    def step(name: str) -> Step:
        def act(log: Path) -> Outcome:
            work.go_to(work.whole)
            lines: list[str] = []
            # kbuild looks for dtschema's tools where a shell would.
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            variables = [f"O={work.out('binding')}", "ARCH=arm64"]
            process.run(
                ["make", *variables, f"DT_SCHEMA_FILES={name}", "dt_binding_check"],
                what=f"dt_binding_check {name}",
                log=log,
                cwd=work.tree,
                env={"PATH": path},
                on_line=lines.append,
            )
            return Outcome(f"dtschema {version}", tuple(binding_faults(lines, name)))

        key = work.key(f"binding {name}", version)
        return Step(work.base, "binding", name.removeprefix(_BINDINGS), key, act)

    return [
        step(name) for name in work.touched if name.startswith(_BINDINGS) and name.endswith(".yaml")
    ]


def binding_faults(lines: list[str], name: str) -> list[str]:
    """Return what ``make dt_binding_check`` says of the binding ``name`` and its example.

    Lines of progress are two spaces, a word in capitals and a file; all else about it is a fault.
    Lines that begin with a tab go on with the one before.
    """
    stem = Path(name).stem
    faults: list[str] = []
    of_a_fault = False
    for line in lines:
        text = line.strip()
        if line.startswith("\t"):
            if of_a_fault:
                faults[-1] += f" {text}"
            continue
        progress = line.startswith("  ") and text.split(" ")[0].isupper()
        of_it = f"{stem}.yaml" in text or f"{stem}.example" in text
        unchecked = "not installed" in text or "minimum version" in text
        of_a_fault = (of_it and not progress) or unchecked
        if of_a_fault:
            faults.append(text)
    return faults


def _base_doc_key(work: Workshop) -> str:
    files = "\n".join(name for name in work.sources if work.in_base(name))
    return work.key(f"base kernel-doc {files}", count=0)


def _kernel_doc(work: Workshop, log: Path) -> list[complaints.Complaint]:
    lines: list[str] = []
    script = work.tree / "scripts" / "kernel-doc"
    # Linux 6.1 has no -Wall: it tells all it knows without.
    more = ["-Wall"] if "-Wall" in script.read_text(errors="replace") else []
    files = [name for name in work.sources if (work.tree / name).is_file()]
    process.run(
        ["perl", "scripts/kernel-doc", "-none", *more, *files],
        what="kernel-doc",
        log=log,
        cwd=work.tree,
        on_line=lines.append,
    )
    return complaints.read(lines, str(work.tree), work.sources)
