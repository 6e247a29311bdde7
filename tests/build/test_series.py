"""Applying a series: by content, all or nothing, with errors that name patch and file."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.build import series
from farm.errors import BuildError, FormatError

GOOD = b"""--- a/fs/ram.c
+++ b/fs/ram.c
@@ -1,3 +1,3 @@
 one
-two
+deux
 three
"""

NEW_FILE = b"""--- /dev/null
+++ b/kernel/new.c
@@ -0,0 +1 @@
+int x;
"""

BAD = GOOD.replace(b"-two", b"-zwei")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "linux"
    (folder / "fs").mkdir(parents=True)
    (folder / "fs/ram.c").write_text("one\ntwo\nthree\n")
    (folder / "fs/other.c").write_text("untouched\n")
    return folder


def written(tmp_path: Path, **patches: bytes) -> tuple[series.Patch, ...]:
    folder = tmp_path / "patches"
    folder.mkdir(exist_ok=True)
    names = [f"{name}.patch" for name in patches]
    for name, content in zip(names, patches.values(), strict=True):
        (folder / name).write_bytes(content)
    (folder / "series").write_text("# the order\n" + "\n".join(names) + "\n")
    return series.read(folder)


def test_patches_are_applied_in_order(tree: Path, tmp_path: Path) -> None:
    series.bring_to(tree, written(tmp_path, p1=GOOD, p2=NEW_FILE), tmp_path / "store")
    assert (tree / "fs/ram.c").read_text() == "one\ndeux\nthree\n"
    assert (tree / "kernel/new.c").read_text() == "int x;\n"


def test_a_shorter_series_takes_the_tree_back(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    series.bring_to(tree, written(tmp_path, p1=GOOD, p2=NEW_FILE), store)
    series.bring_to(tree, (), store)
    assert (tree / "fs/ram.c").read_text() == "one\ntwo\nthree\n"
    assert not (tree / "kernel/new.c").exists()


def test_files_that_stay_the_same_are_not_written(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    series.bring_to(tree, written(tmp_path, p1=GOOD), store)
    before_ns = (tree / "fs/ram.c").stat().st_mtime_ns
    series.bring_to(tree, written(tmp_path, p1=GOOD, p2=NEW_FILE), store)
    assert (tree / "fs/ram.c").stat().st_mtime_ns == before_ns


def test_a_patch_that_does_not_fit_is_named_and_changes_nothing(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        series.bring_to(tree, written(tmp_path, p1=NEW_FILE, p2=BAD), tmp_path / "store")
    assert "p2.patch" in str(caught.value)
    assert "fs/ram.c" in str(caught.value)
    assert (tree / "fs/ram.c").read_text() == "one\ntwo\nthree\n"
    assert not (tree / "kernel/new.c").exists()


def test_a_patch_that_leaves_the_tree_is_refused(tree: Path, tmp_path: Path) -> None:
    evil = NEW_FILE.replace(b"b/kernel/new.c", b"b/../../etc/new.c")
    with pytest.raises(BuildError, match="leaves the source tree"):
        series.bring_to(tree, written(tmp_path, p1=evil), tmp_path / "store")


def test_a_series_line_without_a_file_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("# first\nmissing.patch\n")
    with pytest.raises(FormatError, match=r"series:2: .*missing\.patch"):
        series.read(tmp_path)
