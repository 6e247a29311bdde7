"""Boot images in every layout of devices/, byte for byte as Debian's mkbootimg packs them."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farm.bench.environment import read_options
from farm.boards.chips import facts_of
from farm.boards.tree import parse_tree
from farm.build.board_image import read
from farm.build.bootimage import BootLayout
from tests.bench.virtual_board import DEVICES
from tests.boards.test_overlays import BOARDS, blob_of

KERNEL, RAMDISK, DTB = b"kernel" * 3000, b"ramdisk" * 500, b"\xd0\x0d\xfe\xed" + b"dtb" * 700


def by_mkbootimg(wanted: Any, folder: Path) -> bytes:
    kernel = gzip.compress(KERNEL, 9, mtime=0)
    appended = wanted.dtb == "appended"
    parts = {"kernel": kernel + DTB if appended else kernel, "ramdisk": RAMDISK, "dtb": DTB}
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    words = ["mkbootimg", "--kernel", "kernel", "--ramdisk", "ramdisk", "--board", "panicfarm"]
    words += ["--cmdline", wanted.cmdline, "--output", "boot.img"]
    words += ["--header_version", str(wanted.header_version), "--pagesize", str(wanted.page_size)]
    names = ["base", "kernel_offset", "ramdisk_offset", "tags_offset"]
    words += [] if appended else ["--dtb", "dtb"]
    names += [] if appended else ["dtb_offset"]
    for name in names:
        words += [f"--{name}", hex(getattr(wanted, name))]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return (folder / "boot.img").read_bytes()


@pytest.mark.parametrize("board", BOARDS)
def test_a_boot_image_is_that_of_mkbootimg(board: str, tmp_path: Path) -> None:
    file = DEVICES / f"{board}.yaml"
    wanted = read_options(file).boot_image
    for name, content in {"Image": KERNEL, "initramfs": RAMDISK, "board.dtb": DTB}.items():
        (tmp_path / name).write_bytes(content)
    made = read(file).pack(tmp_path / "Image", tmp_path / "initramfs", tmp_path / "board.dtb")
    assert made == by_mkbootimg(wanted, tmp_path)
    facts = facts_of(parse_tree(blob_of(board), Path(f"{board}.dtb")))
    assert facts is not None
    assert BootLayout(**wanted.model_dump(exclude={"cmdline"})) == facts.boot_image
