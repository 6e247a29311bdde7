"""The steps of a build in order, and which of them an earlier build has already done."""

from __future__ import annotations

import errno
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import farm
from farm.build import (
    busybox,
    cache,
    devicetree,
    initramfs,
    keys,
    process,
    product,
    series,
    source,
)
from farm.build.kernel import TOOLS, KernelBuild, compiler_version
from farm.build.progress import BuildProgress
from farm.errors import UsageError

_BUILD_BYTES = 1 << 30
_KERNEL_RECORD = "kernel.json"


@dataclass(frozen=True)
class Request:
    """What is to be built, from which project folder, into which cache."""

    board: str
    base: str
    jobs: int
    force: bool
    project: Path
    cache: Path

    @property
    def fragment(self) -> Path:
        """The board's config fragment."""
        return self.project / "kernel-patches" / "configs" / f"{self.board}.config"

    @property
    def devicetree(self) -> Path:
        """The board's device tree source."""
        return self.project / "devices" / f"{self.board}.dts"

    @property
    def patches(self) -> Path:
        """The folder of the series for the base version."""
        return self.project / "kernel-patches" / self.base

    @property
    def products(self) -> Path:
        """Where the board's products are kept."""
        return self.cache / self.board


def project_folder() -> Path:
    """Return the project's folder, which holds the series and the boards.

    Raises ``UsageError`` when the package is installed without them.
    """
    folder = Path(farm.__file__).resolve().parents[1]
    if not (folder / "kernel-patches").is_dir():
        raise UsageError(
            f"{folder} holds no kernel-patches: this farm was installed without its project",
            "install it from a checkout: make setup",
        )
    return folder


def build(request: Request, progress: BuildProgress) -> product.Product:
    """Return the product for ``request``, building only what no earlier build has left."""
    if not request.fragment.is_file():
        raise UsageError(
            f"there is no kernel configuration for the board {request.board!r}: "
            f"{request.fragment} does not exist"
        )
    tarball = source.find(request.base)
    process.require_tools([*TOOLS, "cpp", "dtc"])
    patches = series.read(request.patches)
    kernel_input = keys.KernelInput(
        base=request.base,
        base_version=tarball.version,
        tarball_bytes=tarball.size_bytes,
        series=tuple(patch.identity for patch in patches),
        config_sha256=keys.sha256(request.fragment.read_bytes()),
        compiler=compiler_version(),
    )
    devicetree_input = devicetree.inputs(request.devicetree)
    binary = busybox.fetched(request.cache)
    if binary is not None and not request.force:
        inputs = _inputs(request, kernel_input, devicetree_input, binary)
        ready = _ready(request, keys.keys(inputs))
        if ready is not None:
            return ready
    purpose = f"farm build, board {request.board}, base {request.base}"
    try:
        with cache.locked(request.cache, purpose, progress.say):
            if binary is None:
                progress.stage("busybox for the board")
                binary = busybox.fetch(request.cache, _log(request, "busybox"))
            inputs = _inputs(request, kernel_input, devicetree_input, binary)
            names = keys.keys(inputs)
            # Whoever held the lock may have built just this.
            ready = None if request.force else _ready(request, names)
            if ready is not None:
                return ready
            return _make(request, inputs, names, tarball, patches, binary, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise cache.disk_full(request.cache) from error
        raise


def _inputs(
    request: Request,
    kernel: keys.KernelInput,
    tree: keys.DevicetreeInput,
    binary: bytes,
) -> keys.Inputs:
    content = keys.sha256(initramfs.recipe().encode())
    return keys.Inputs(
        request.board, kernel, tree, keys.InitramfsInput(keys.sha256(binary), content)
    )


def _ready(request: Request, names: keys.Keys) -> product.Product | None:
    folder = request.products / names.product
    if not (folder / product.RECORD).is_file():
        return None
    found = product.load(folder, cached=True)
    cache.point(request.products / "current", folder.name)
    return found


def _make(
    request: Request,
    inputs: keys.Inputs,
    names: keys.Keys,
    tarball: source.Tarball,
    patches: tuple[series.Patch, ...],
    binary: bytes,
    progress: BuildProgress,
) -> product.Product:
    blob_name = f"{request.board}.dtb"
    blob_folder = request.products / "dtb" / names.devicetree
    if request.force or not blob_folder.is_dir():
        progress.stage("device tree")
        blob = devicetree.compile_blob(request.devicetree)
        with cache.new_folder(blob_folder) as folder:
            (folder / blob_name).write_bytes(blob)
    initramfs_folder = request.products / "initramfs" / names.initramfs
    if request.force or not initramfs_folder.is_dir():
        progress.stage("initramfs")
        with cache.new_folder(initramfs_folder) as folder:
            (folder / "initramfs.cpio.gz").write_bytes(initramfs.image(binary))
    # Last, because it takes longest: a mistake elsewhere shows at once.
    kernel_folder = request.products / "kernel" / names.kernel
    if request.force or not (kernel_folder / _KERNEL_RECORD).is_file():
        _make_kernel(request, kernel_folder, tarball, patches, progress)
    kernel: dict[str, Any] = json.loads((kernel_folder / _KERNEL_RECORD).read_text())

    final = request.products / names.product
    with cache.new_folder(final) as folder:
        for part in (kernel_folder, blob_folder, initramfs_folder):
            for file in part.iterdir():
                if file.name != _KERNEL_RECORD:
                    cache.share(file, folder / file.name)
        product.write_record(folder, inputs, names, kernel, progress.stages_s)
    cache.point(request.products / "current", final.name)
    return product.load(final, cached=False)


def _make_kernel(
    request: Request,
    final: Path,
    tarball: source.Tarball,
    patches: tuple[series.Patch, ...],
    progress: BuildProgress,
) -> None:
    log = _log(request, f"kernel-{request.board}-{request.base}")
    progress.stage(f"unpack {tarball.path.name}")
    base = source.unpack(tarball, request.cache, log, progress.advance)
    out = base / f"out-{request.board}"
    if request.force:
        shutil.rmtree(out, ignore_errors=True)
    cache.require_space(base, _BUILD_BYTES)
    progress.stage(f"apply {len(patches)} patches")
    series.bring_to(base / "linux", patches, base)
    work = KernelBuild(base / "linux", out, log, request.jobs)
    progress.stage("configure")
    work.configure(request.fragment)
    progress.stage("compile the kernel")
    compiled = work.compile(progress.advance)
    progress.stage("store")
    with cache.new_folder(final) as folder:
        work.copy_products(folder)
        (folder / _KERNEL_RECORD).write_text(json.dumps(asdict(compiled)))


def _log(request: Request, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return request.cache / "logs" / f"{name}-{stamp}.log"
