"""The kernels of a night: built or found before any board is started, a boot image for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.bench.options import BenchOptions
from farm.build import cache, pipeline
from farm.build.kernel import build_id, default_jobs
from farm.build.product import Product
from farm.build.progress import BuildProgress
from farm.errors import BenchError, BuildError, UsageError
from farm.model import NightKernel
from farm.nightly.plan import Build, NightPlan, Prebuilt
from farm.run.flash import BootImage, pack

__all__ = ["Kernels", "prepare_kernels"]

_HASHED = ("Image", "vmlinux", "config")


@dataclass(frozen=True)
class Kernels:
    """What each is known by, and by (kernel, board) what is flashed; nothing with no flashing."""

    known: tuple[NightKernel, ...]
    images: Mapping[tuple[str, str], BootImage]


def prepare_kernels(
    plan: NightPlan, boards: Iterable[BenchOptions], folder: Path, progress: BuildProgress
) -> Kernels:
    """Build or find every kernel of the plan; boot images are stored in ``folder``.

    Raises UsageError for a kernel or a board's build that is not there, BuildError when a build
    fails.
    """
    boards = tuple(boards)
    if plan.flash == "none":
        return Kernels((NightKernel(name=plan.kernels[0].name),), {})
    known: list[NightKernel] = []
    images: dict[tuple[str, str], BootImage] = {}
    for kernel in plan.kernels:
        if isinstance(kernel, Prebuilt):
            found = _prebuilt(kernel)
            image = BootImage(kernel.boot_image.resolve(), found.build_id or "")
            images.update(((kernel.name, board.board), image) for board in boards)
            known.append(found)
            continue
        made: dict[tuple[str, str, str], tuple[Product, BootImage]] = {}
        for board in boards:
            request = _request(kernel, board)
            # Boards of one build may have bootloaders that want another layout.
            layout = board.boot_image.model_dump_json()
            key = (request.board, request.base, layout)
            if key not in made:
                progress.say(f"kernel {kernel.name} for {request.board}, Linux {request.base}")
                product = pipeline.build(request, progress)
                path = folder / f"{kernel.name}-{request.board}-{request.base}-{len(made)}.img"
                _store(path, pack(product, board))
                made[key] = product, BootImage(path.resolve(), product.record["build_id"])
            images[kernel.name, board.board] = made[key][1]
        known.append(_built(kernel.name, [product for product, _ in made.values()]))
    return Kernels(tuple(known), images)


def _request(kernel: Build, board: BenchOptions) -> pipeline.Request:
    if not board.build:
        raise UsageError(
            f"the board {board.board} has no build, so the kernel {kernel.name} cannot be made",
            "Add `build`, the name of its devices/NAME.dts or NAME.dtso, to its options; or name a "
            "boot_image and vmlinux in the plan.",
        )
    return pipeline.Request(
        board=board.build,
        base=kernel.base or board.base,
        jobs=default_jobs(),
        force=False,
        project=pipeline.project_folder(),
        cache=cache.root(),
        variant=kernel.variant or board.variant,
        extra=kernel.patches,
    )


def _built(name: str, products: list[Product]) -> NightKernel:
    """What a kernel is known by; of several builds, for boards of several kinds, all."""
    hashes: dict[str, str] = {}
    for product in products:
        mark = "" if len(products) == 1 else f"{product.record['board']}/"
        for file in _HASHED:
            hashes[f"{mark}{file}"] = _sha256(product.folder / file)
        for patch in product.record["patches"]:
            hashes[f"{mark}patches/{patch['name']}"] = patch["sha256"]
    releases = {product.record["kernel_release"] for product in products}
    ids = {product.record["build_id"] for product in products}
    return NightKernel(
        name=name,
        release=",".join(sorted(releases)),
        build_id=",".join(sorted(ids)),
        sha256=hashes,
    )


def _prebuilt(kernel: Prebuilt) -> NightKernel:
    for path in (kernel.boot_image, kernel.vmlinux):
        if not path.is_file():
            raise UsageError(f"the kernel {kernel.name}: there is no file {path}")
    try:
        known_by = build_id(kernel.vmlinux)
    except BuildError as error:
        raise UsageError(f"the kernel {kernel.name}: {error.message}") from error
    hashes = {"boot_image": _sha256(kernel.boot_image), "vmlinux": _sha256(kernel.vmlinux)}
    return NightKernel(name=kernel.name, build_id=known_by, sha256=hashes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store(path: Path, data: bytes) -> None:
    """Write the image whole or not at all: a worker may be flashing the one before."""
    if path.is_file() and path.read_bytes() == data:
        return
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}", part="disk") from error
