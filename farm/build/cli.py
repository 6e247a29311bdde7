"""``farm build``: the command."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.build import cache, pipeline
from farm.build.kernel import default_jobs
from farm.build.progress import BuildProgress
from farm.signals import termination_as_interrupt


def build(
    base: Annotated[
        str, typer.Option(help="Kernel version the series stands on.")
    ] = pipeline.DEFAULT_BASE,
    board: Annotated[
        str,
        typer.Option(
            help="Board: devices/BOARD.dts, or devices/BOARD.dtso for one of the kernel's source."
        ),
    ] = "virtual",
    variant: Annotated[
        str,
        typer.Option(
            help="Another kernel for the board: kernel-patches/configs/VARIANT.config on top. "
            "debug: KASAN, lockdep and more; stock: without the series.",
            show_default=False,
        ),
    ] = "",
    jobs: Annotated[
        int,
        typer.Option(min=0, help="Compilers at once; 0: one per processor.", show_default=False),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the build's record as JSON.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build everything again, from nothing.")
    ] = False,
) -> None:
    """Build kernel, device tree and initramfs for a board; what is already built is used again.

    For a board of the kernel's source also boot.img, as devices/BOARD.yaml says; all these boards
    share one kernel.
    """
    request = pipeline.Request(
        board=board,
        base=base,
        jobs=jobs or default_jobs(),
        force=force,
        project=pipeline.project_folder(),
        cache=cache.root(),
        variant=variant,
    )
    with termination_as_interrupt(), BuildProgress() as progress:
        product = pipeline.build(request, progress)
    if as_json:
        print(product.as_json())
        return
    record = product.record
    named = f"{board} ({variant})" if variant else board
    print(
        f"{named}: Linux {record['kernel_release']}, {len(record['patches'])} patches, "
        f"build id {record['build_id']}" + (" (already built)" if product.cached else "")
    )
    print(product.folder)
