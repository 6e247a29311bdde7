"""Which steps there are for a base version, in the order that costs least.

For each architecture what needs the base source comes first, so that the tree moves in one
direction: each move makes kbuild look again at all that it touches. What tells most comes early.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from farm.build import cache, series, source
from farm.build.check import builds, kunit, papers
from farm.build.check.ledger import Ledger, Result, Step
from farm.build.check.workshop import BUILT_IN, MODULES, Workshop
from farm.build.kernel import ARM64, X86_64, Architecture
from farm.build.pipeline import Request
from farm.build.progress import BuildProgress
from farm.errors import UsageError

PARTS = {
    "apply": "every patch applies to a pristine tree, without fuzz",
    "checkpatch": "checkpatch --strict: no error, no warning, no check",
    "kernel-doc": "kernel-doc -Wall: no new complaint",
    "binding": "dt_binding_check, with dtschema and yamllint",
    "builds": "every patch by itself builds on arm64, W=1",
    "whole": "the series builds on arm64 and x86_64, W=1, test devices =y and =m",
    "sparse": "sparse: no new complaint, arm64 and x86_64",
    "off": "with its options off: no object grows, arm64; touched files build, x86_64",
    "kunit": "all KUnit cases pass, arm64 in QEMU",
}
_COMPILED = frozenset({"builds", "whole", "sparse", "off"})
_CHECK_BYTES = 8 << 30


def open_workshop(request: Request, progress: BuildProgress) -> Workshop:
    """Unpack the base source; raises ``UsageError`` if there is no series for it."""
    patches = series.read(request.patches)
    if not patches:
        raise UsageError(f"there is no series in {request.patches}")
    tarball = source.find(request.base)
    log = request.cache / "logs" / f"{request.base}-unpack.log"
    cache.require_space(request.cache, _CHECK_BYTES)
    progress.stage(f"{request.base} unpack {tarball.path.name}")
    store = source.unpack(tarball, request.cache, log, progress.advance)
    return Workshop(request, tarball, store, patches, progress)


def take(work: Workshop, ledger: Ledger, parts: Collection[str]) -> Iterator[Result]:
    """Take the steps of ``parts`` in order; a series that does not apply has no others."""
    applied = ledger.take(papers.applies(work), work.progress)
    yield applied
    if not applied.passed:
        return
    for step in _steps(work, ledger, parts):
        yield ledger.take(step, work.progress)


def _steps(work: Workshop, ledger: Ledger, parts: Collection[str]) -> Iterator[Step]:
    if "kernel-doc" in parts:
        yield papers.base_kernel_doc(work)
    if "checkpatch" in parts:
        yield from papers.checkpatch(work)
    if set(parts) & _COMPILED:
        yield builds.base_build(work)
    if "sparse" in parts:
        yield builds.base_sparse(work)
    if "builds" in parts:
        yield from builds.each_patch(work, ledger)
    yield from _whole(work, ledger, parts, ARM64)
    if "kunit" in parts:
        yield kunit.cases(work)
    if "off" in parts:
        yield builds.off(work, ledger)
    if "kernel-doc" in parts:
        yield papers.kernel_doc(work, ledger)
    if "binding" in parts:
        yield from papers.binding(work)
    yield from _whole(work, ledger, parts, X86_64)
    if "off" in parts:
        yield builds.off_in_files(work, ledger, X86_64)


def _whole(
    work: Workshop, ledger: Ledger, parts: Collection[str], architecture: Architecture
) -> Iterator[Step]:
    if "whole" in parts:
        yield builds.whole(work, ledger, architecture, MODULES)
    if "sparse" in parts:
        yield builds.sparse(work, ledger, architecture)
    if "whole" in parts:
        yield builds.whole(work, ledger, architecture, BUILT_IN)
