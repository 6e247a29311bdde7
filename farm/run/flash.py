"""Bringing the farm's own kernel onto the board: build, boot image, flash, and the proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farm.bench.environment import Bench
from farm.bench.options import BenchOptions
from farm.bench.strategy import Status
from farm.build import bootimage, cache, pipeline
from farm.build.kernel import default_jobs
from farm.build.product import Product
from farm.build.progress import BuildProgress
from farm.errors import BenchError, UsageError
from farm.model import Manifest

WAYS = ("fastboot", "edl")


@dataclass(frozen=True)
class BootImage:
    """A boot image that was made before the run, and the build id of the kernel in it."""

    path: Path
    build_id: str


@dataclass(frozen=True)
class Flashed:
    """What was flashed: the kernel's build id, and by which tool."""

    build_id: str
    tool: str
    image_bytes: int


def parse_flash(text: str | None) -> str | None:
    """The way of ``--flash``; raises UsageError."""
    if text is not None and text not in WAYS:
        raise UsageError(f"--flash: {text!r} is no way to flash", f"The ways: {', '.join(WAYS)}.")
    return text


def _build(bench: Bench, folder: Path) -> BootImage:
    """Build the board's kernel and store its boot image in ``folder``; raises BuildError."""
    name = bench.options.build
    if not name:
        raise UsageError(
            f"the board {bench.options.board} has no build",
            "Add `build`, the name of its devices/NAME.dts or NAME.dtso, to the target's options.",
        )
    request = pipeline.Request(
        board=name,
        base=bench.options.base,
        jobs=default_jobs(),
        force=False,
        project=pipeline.project_folder(),
        cache=cache.root(),
        variant=bench.options.variant,
    )
    with BuildProgress() as progress:
        product = pipeline.build(request, progress)
    image = folder / "boot.img"
    image.write_bytes(pack(product, bench.options))
    return BootImage(image, product.record["build_id"])


def pack(product: Product, options: BenchOptions) -> bytes:
    """The boot image of what was built for a board, laid out as its bootloader wants it."""
    wanted = options.boot_image
    return bootimage.pack(
        (product.folder / "Image").read_bytes(),
        (product.folder / "initramfs.cpio.gz").read_bytes(),
        (product.folder / f"{options.build}.dtb").read_bytes(),
        wanted.cmdline,
        bootimage.BootLayout(**wanted.model_dump(exclude={"cmdline"})),
    )


def flash(bench: Bench, way: str, folder: Path, boot_image: BootImage | None = None) -> Flashed:
    """Flash a kernel and boot it: the board's own, which is built first, or ``boot_image``.

    Raises BuildError, BenchError.
    """
    made = boot_image or _build(bench, folder)
    image = made.path
    partition = bench.options.boot_partition
    strategy = bench.strategy
    tool = "fastboot"
    if way == "fastboot":
        strategy.transition(Status.fastboot)
        driver = strategy.driver("fastboot")
        driver.flash(partition, image, strategy.progress)
        if partition[-2:] in ("_a", "_b"):
            driver.run("set_active", partition[-1])
    else:
        strategy.transition(Status.edl)
        tool = strategy.driver("edl").flash(partition, image, strategy.progress)
        strategy.force(Status.unknown)
    strategy.transition(Status.shell)
    return Flashed(made.build_id, tool, image.stat().st_size)


def check(flashed: Flashed, manifest: Manifest) -> None:
    """Raise BenchError when another kernel runs than the one that was flashed."""
    if manifest.build_id != flashed.build_id:
        raise BenchError(
            f"the board {manifest.board} runs a kernel with build id {manifest.build_id}, "
            f"flashed was {flashed.build_id}",
            part="board",
            next_step="It may have booted its other slot; see console.log.",
        )
