"""The steps of a build in order, and which of them an earlier build has already done.

A board is described by a tree of its own, devices/BOARD.dts, with a configuration from nothing; or
it is one of the kernel's source, with an overlay, devices/BOARD.dtso: all of these have one kernel,
on defconfig, and a boot image as devices/BOARD.yaml wants it.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import farm
from farm.build import (
    board_image,
    busybox,
    cache,
    devicetree,
    initramfs,
    kconfig,
    kernel_trees,
    keys,
    process,
    product,
    series,
    source,
)
from farm.build.kernel import TOOLS, KernelBuild, compiler_version
from farm.build.progress import BuildProgress
from farm.build.series import Patch
from farm.errors import UsageError

DEFAULT_BASE = "6.12"
STOCK = "stock"
"""The variant without the series: the kernel as the distribution has it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_BUILD_BYTES = 1 << 30
_KERNEL_RECORD = "kernel.json"
_PLATFORM = "qualcomm"
_PLATFORM_FRAGMENTS = (_PLATFORM, "qualcomm-initramfs")
"""What boards of the kernel's source are configured by; kernel_trees has no others."""
_ON_DEFCONFIG = "on what defconfig has built in\n"


@dataclass(frozen=True)
class Request:
    """What is to be built, from which project folder, into which cache.

    ``variant`` is another kernel for the same board: a fragment of its own on top; "": none.
    ``extra`` are patches on top of the series.
    """

    board: str
    base: str
    jobs: int
    force: bool
    project: Path
    cache: Path
    variant: str = ""
    extra: tuple[Path, ...] = ()

    @property
    def fragments(self) -> tuple[Path, ...]:
        """The config fragments, each on top of those before it.

        The board's and the variant's must be there; what only one base version has or lacks
        stands in BOARD-BASE.config and VARIANT-BASE.config. Raises ``UsageError``.
        """
        folder = self.project / "kernel-patches" / "configs"
        found = []
        boards = _PLATFORM_FRAGMENTS if self.is_of_the_source else (self.board,)
        asked = [("board", name) for name in boards]
        asked += [("variant", self.variant)] if self.variant else []
        for what, name in asked:
            own = folder / f"{name}.config"
            if _NAME.fullmatch(name) is None or not own.is_file():
                raise UsageError(
                    f"there is no kernel configuration for the {what} {name!r}: "
                    f"{own} does not exist",
                    f"a board of the kernel's source has devices/{name}.dtso instead: "
                    f"farm board new {name}"
                    if what == "board"
                    else "",
                )
            found.append(own)
            of_base = folder / f"{name}-{self.base}.config"
            if of_base.is_file():
                found.append(of_base)
        return tuple(found)

    @property
    def pointer(self) -> Path:
        """The link to the newest product: ``current``, ``current-6.1``, ``current-debug`` ...

        A kernel with extra patches has a link of its own: nobody boots it unasked.
        """
        marks = ["current"]
        marks += [self.base] if self.base != DEFAULT_BASE else []
        marks += [self.variant] if self.variant else []
        if self.extra:
            content = b"".join(patch.content for patch in self._extra)
            marks.append(f"with-{keys.sha256(content)[:8]}")
        return self.products / "-".join(marks)

    @property
    def series(self) -> tuple[series.Patch, ...]:
        """The patches that go in; raises ``UsageError`` for an extra one that cannot be read."""
        own = () if self.variant == STOCK else series.read(self.patches)
        return (*own, *self._extra)

    @property
    def _extra(self) -> tuple[Patch, ...]:
        try:
            return tuple(Patch(path, path.read_bytes()) for path in self.extra)
        except OSError as error:
            raise UsageError(f"the patch {error.filename}: {error.strerror}") from error

    @property
    def is_of_the_source(self) -> bool:
        """Whether the board's tree is one of the kernel's source, with an overlay."""
        named = _NAME.fullmatch(self.board) is not None
        return named and not self.devicetree.is_file() and self.overlay.is_file()

    @property
    def devicetree(self) -> Path:
        """The board's device tree source, if it has one of its own."""
        return self.project / "devices" / f"{self.board}.dts"

    @property
    def overlay(self) -> Path:
        """The source of the overlay on a tree of the kernel's source."""
        return self.project / "devices" / f"{self.board}.dtso"

    @property
    def environment(self) -> Path:
        """The board's labgrid environment, which says how its boot image is laid out."""
        return self.project / "devices" / f"{self.board}.yaml"

    @property
    def blob_name(self) -> str:
        """The file name of the board's device tree blob in its product."""
        return f"{self.board}.dtb"

    @property
    def kernel_of(self) -> str:
        """Whose kernel it is: boards of the kernel's source share one."""
        return _PLATFORM if self.is_of_the_source else self.board

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
    options = kconfig.merge(*request.fragments)
    boot = board_image.read(request.environment) if request.is_of_the_source else None
    tarball = source.find(request.base)
    process.require_tools([*TOOLS, "cpp", "dtc"])
    patches = request.series
    kernel_input = keys.KernelInput(
        base=request.base,
        base_version=tarball.version,
        tarball_bytes=tarball.size_bytes,
        series=tuple(patch.identity for patch in patches),
        config_sha256=keys.sha256((_ON_DEFCONFIG * request.is_of_the_source + options).encode()),
        compiler=compiler_version(),
    )
    if request.is_of_the_source:
        tree_of = "\n".join((request.board, tarball.version, *map(str, kernel_input.series)))
        devicetree_input = devicetree.overlay_inputs(request.overlay, tree_of)
    else:
        devicetree_input = devicetree.inputs(request.devicetree)
    binary = busybox.fetched(request.cache)
    if binary is not None and not request.force:
        inputs = _inputs(request, kernel_input, devicetree_input, binary, boot)
        ready = _ready(request, keys.keys(inputs))
        if ready is not None:
            return ready
    purpose = f"farm build, board {request.board}, base {request.base}"
    purpose += f", variant {request.variant}" if request.variant else ""
    try:
        with cache.locked(request.cache, purpose, progress.say):
            if binary is None:
                progress.stage("busybox for the board")
                binary = busybox.fetch(request.cache, _log(request, "busybox"))
            inputs = _inputs(request, kernel_input, devicetree_input, binary, boot)
            names = keys.keys(inputs)
            # Whoever held the lock may have built just this.
            ready = None if request.force else _ready(request, names)
            if ready is not None:
                return ready
            make = _Make(request, tarball, patches, options, progress)
            return make.product(inputs, names, binary, boot)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise cache.disk_full(request.cache) from error
        raise


def _inputs(
    request: Request,
    kernel: keys.KernelInput,
    tree: keys.DevicetreeInput,
    binary: bytes,
    boot: board_image.BoardImage | None,
) -> keys.Inputs:
    content = keys.sha256(initramfs.recipe().encode())
    user_space = keys.InitramfsInput(keys.sha256(binary), content)
    layout = "" if boot is None else boot.model_dump_json()
    return keys.Inputs(request.board, kernel, tree, user_space, request.variant, layout)


def _ready(request: Request, names: keys.Keys) -> product.Product | None:
    folder = request.products / names.product
    if not (folder / product.RECORD).is_file():
        return None
    found = product.load(folder, cached=True)
    cache.point(request.pointer, folder.name)
    return found


@dataclass(frozen=True)
class _Make:
    """One build that is not there yet."""

    request: Request
    tarball: source.Tarball
    patches: tuple[series.Patch, ...]
    options: str
    progress: BuildProgress

    def product(
        self,
        inputs: keys.Inputs,
        names: keys.Keys,
        binary: bytes,
        boot: board_image.BoardImage | None,
    ) -> product.Product:
        """Make what is missing, and put the product together."""
        request = self.request
        blob_folder = request.products / "dtb" / names.devicetree
        if request.force or not blob_folder.is_dir():
            blob = self._blob()
            with cache.new_folder(blob_folder) as folder:
                (folder / request.blob_name).write_bytes(blob)
        initramfs_folder = request.products / "initramfs" / names.initramfs
        if request.force or not initramfs_folder.is_dir():
            self.progress.stage("initramfs")
            with cache.new_folder(initramfs_folder) as folder:
                (folder / "initramfs.cpio.gz").write_bytes(initramfs.image(binary))
        # Last, because it takes longest: a mistake elsewhere shows at once.
        kernel_folder = request.cache / request.kernel_of / "kernel" / names.kernel
        if request.force or not (kernel_folder / _KERNEL_RECORD).is_file():
            self._kernel(kernel_folder)
        kernel: dict[str, Any] = json.loads((kernel_folder / _KERNEL_RECORD).read_text())

        final = request.products / names.product
        with cache.new_folder(final) as folder:
            for part in (kernel_folder, blob_folder, initramfs_folder):
                for file in part.iterdir():
                    if file.name != _KERNEL_RECORD:
                        cache.share(file, folder / file.name)
            if boot is not None:
                parts = (folder / "Image", folder / "initramfs.cpio.gz", folder / request.blob_name)
                (folder / "boot.img").write_bytes(boot.pack(*parts))
            product.write_record(folder, inputs, names, kernel, self.progress.stages_s)
        cache.point(request.pointer, final.name)
        return product.load(final, cached=False)

    def _blob(self) -> bytes:
        request = self.request
        if not request.is_of_the_source:
            self.progress.stage("device tree")
            return devicetree.compile_blob(request.devicetree)
        linux = self._source / "linux"
        self.progress.stage("device tree and overlay")
        name = request.overlay.name
        overlay = devicetree.compile_overlay(request.overlay.read_text(), name)
        blob = kernel_trees.blob_of(linux, request.board)
        return devicetree.apply_overlay(blob, overlay, name)

    @cached_property
    def _source(self) -> Path:
        """The folder whose ``linux`` is the base's source with the series."""
        log = _log(self.request, f"unpack-{self.request.base}")
        self.progress.stage(f"unpack {self.tarball.path.name}")
        base = source.unpack(self.tarball, self.request.cache, log, self.progress.advance)
        self.progress.stage(f"apply {len(self.patches)} patches")
        series.bring_to(base / "linux", self.patches, base)
        return base

    def _kernel(self, final: Path) -> None:
        request = self.request
        what = "-".join(filter(None, (request.kernel_of, request.variant)))
        base = self._source
        out = base / f"out-{what}"
        if request.force:
            shutil.rmtree(out, ignore_errors=True)
        cache.require_space(base, _BUILD_BYTES)
        log = _log(request, f"kernel-{what}-{request.base}")
        work = KernelBuild(base / "linux", out, log, request.jobs)
        self.progress.stage("configure")
        out.mkdir(parents=True, exist_ok=True)
        fragment = out / f"{what}.config"
        fragment.write_text(self.options)
        work.configure(fragment, on_defconfig=request.is_of_the_source)
        self.progress.stage("compile the kernel")
        compiled = work.compile(self.progress.advance)
        self.progress.stage("store")
        with cache.new_folder(final) as folder:
            work.copy_products(folder)
            (folder / _KERNEL_RECORD).write_text(json.dumps(asdict(compiled)))


def _log(request: Request, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return request.cache / "logs" / f"{name}-{stamp}.log"
