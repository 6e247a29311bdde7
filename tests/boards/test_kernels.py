"""The kernel of the real boards, as `farm build` makes it, and each board's tree and boot image.

The kernel is compiled once for all of them, some minutes on two cores.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from farm.bench.environment import read_options
from farm.boards.suppliers import without_driver
from farm.boards.tree import parse_tree
from farm.build.kernel import build_id
from tests.bench.virtual_board import DEVICES
from tests.boards.libfdt import Fdt
from tests.boards.test_overlays import BOARDS, complaints

pytestmark = pytest.mark.boards


def built(board: str) -> Path:
    words = ["build", "--board", board, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    return Path(json.loads(done.stdout)["folder"])


def unpacked(image: Path, folder: Path) -> dict[str, bytes]:
    """What AOSP's own tool takes out of it."""
    words = ["unpack_bootimg", "--boot_img", str(image), "--out", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("board", BOARDS)
def test_kernel_tree_and_boot_image_of_a_board(board: str, tmp_path: Path) -> None:
    product = built(board)
    image, blob = (product / "Image").read_bytes(), (product / f"{board}.dtb").read_bytes()
    # The console, and all that it depends on, has a driver.
    assert without_driver(blob, image) == ()
    assert complaints(board, blob) == []
    (node,) = parse_tree(blob, Path(f"{board}.dtb")).ramoops
    tree = Fdt(blob)
    assert tree.number(tree.offset(node.path), "panicdump-size") > 0
    assert (
        build_id(product / "vmlinux")
        == json.loads((product / "build.json").read_text())["build_id"]
    )
    # The boot image has just these, wherever its layout puts the tree.
    wanted = read_options(DEVICES / f"{board}.yaml").boot_image
    parts = unpacked(product / "boot.img", tmp_path)
    assert parts["ramdisk"] == (product / "initramfs.cpio.gz").read_bytes()
    kernel = parts["kernel"]
    if wanted.dtb == "appended":
        assert kernel.endswith(blob)
        kernel = kernel[: -len(blob)]
    else:
        assert parts["dtb"] == blob
    assert (gzip.decompress(kernel) if wanted.compress else kernel) == image


def test_all_boards_share_one_kernel() -> None:
    first, second = built(BOARDS[0]), built(BOARDS[-1])
    assert first != second
    assert (first / "Image").samefile(second / "Image")
