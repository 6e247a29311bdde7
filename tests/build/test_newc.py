"""The initramfs archive, read back by cpio itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farm.build import newc


def test_cpio_lists_every_member() -> None:
    data = newc.archive(
        [
            newc.directory("bin"),
            newc.regular("bin/tool", b"#!/bin/sh\n", 0o755),
            newc.symlink("bin/sh", "tool"),
            newc.directory("dev"),
            newc.character_device("dev/console", 5, 1),
        ]
    )
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=data, capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        "drwxr-xr-x",
        "-rwxr-xr-x",
        "lrwxrwxrwx",
        "drwxr-xr-x",
        "crw-------",
    ]
    assert lines[2].endswith("bin/sh -> tool")
    assert "5,   1" in lines[4]


def test_cpio_unpacks_the_same_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5 + b"odd"
    data = newc.archive([newc.regular("file", content)])
    subprocess.run(["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", ""])
def test_a_name_outside_the_root_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not relative"):
        newc.regular(name, b"")


def test_the_bytes_follow_from_the_entries_alone() -> None:
    entries = [newc.directory("a"), newc.regular("a/b", b"x")]
    assert newc.archive(entries) == newc.archive(entries)
