"""Variants of a board's kernel: whose options hold, which patches go in, where the product is."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.build import kconfig
from farm.build.pipeline import Request, project_folder
from farm.errors import UsageError
from farm.virtual.options import default_image_dir, resolve_images


def request(project: Path, base: str = "6.12", variant: str = "") -> Request:
    return Request("board", base, 1, False, project, project / "cache", variant)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    configs = tmp_path / "kernel-patches" / "configs"
    configs.mkdir(parents=True)
    (configs / "board.config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    (configs / "board-6.1.config").write_text("CONFIG_A=n\n")
    (configs / "debug.config").write_text("CONFIG_B=n\nCONFIG_KASAN=y\n")
    (configs / "debug-6.1.config").write_text("CONFIG_KASAN=n\n")
    (configs / "stock.config").write_text("CONFIG_B=n\n")
    series = tmp_path / "kernel-patches" / "6.12"
    series.mkdir()
    (series / "series").write_text("1.patch\n")
    (series / "1.patch").write_text("--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n")
    return tmp_path


@pytest.mark.parametrize(
    ("base", "variant", "options"),
    [
        ("6.12", "", {"CONFIG_A": "y", "CONFIG_B": "y"}),
        ("6.1", "", {"CONFIG_A": "n", "CONFIG_B": "y"}),
        ("6.12", "debug", {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_KASAN": "y"}),
        ("6.1", "debug", {"CONFIG_A": "n", "CONFIG_B": "n", "CONFIG_KASAN": "n"}),
    ],
)
def test_the_more_special_fragment_decides(
    project: Path, base: str, variant: str, options: dict[str, str]
) -> None:
    merged = kconfig.merge(*request(project, base, variant).fragments)
    assert kconfig.parse(merged, "merged") == options


@pytest.mark.parametrize("variant", ["nosuch", "../configs/debug", "-debug", "DEBUG"])
def test_an_unknown_variant_is_an_error(project: Path, variant: str) -> None:
    with pytest.raises(UsageError, match="variant"):
        _ = request(project, variant=variant).fragments


def test_a_lifted_option_may_be_missing_from_the_kernel(project: Path, tmp_path: Path) -> None:
    fragment, config = tmp_path / "merged.config", tmp_path / ".config"
    fragment.write_text(kconfig.merge(*request(project, "6.1").fragments))
    config.write_text("CONFIG_B=y\n")
    kconfig.check(fragment, config)


def test_the_stock_kernel_has_no_patches(project: Path) -> None:
    assert [patch.name for patch in request(project).series] == ["1.patch"]
    assert [patch.name for patch in request(project, variant="debug").series] == ["1.patch"]
    assert request(project, variant="stock").series == ()


@pytest.mark.parametrize("base", ["6.12", "6.1"])
@pytest.mark.parametrize("variant", ["", "debug", "stock"])
def test_the_virtual_board_finds_what_was_built(
    base: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_FARM_CACHE", str(tmp_path))
    built = Request("virtual", base, 1, False, project_folder(), tmp_path, variant).pointer
    with pytest.raises(UsageError):
        default_image_dir(base, variant)
    (tmp_path / "virtual" / "key").mkdir(parents=True)
    built.symlink_to("key")
    assert default_image_dir(base, variant) == built


def test_no_variant_moves_the_default_kernels_pointer(tmp_path: Path) -> None:
    pointers = [
        Request("virtual", base, 1, False, project_folder(), tmp_path, variant).pointer.name
        for base in ("6.12", "6.1")
        for variant in ("", "debug", "stock")
    ]
    assert len(set(pointers)) == len(pointers)
    assert pointers[0] == "current"


def test_a_folder_and_a_variant_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--image-dir"):
        resolve_images(tmp_path, None, None, None, variant="debug")


def test_a_build_that_is_missing_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_FARM_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        default_image_dir("6.1", "debug")
    assert "farm build --base 6.1 --variant debug" in str(caught.value.next_step)


def test_every_fragment_of_the_project_reads_well() -> None:
    for variant in ("", "debug", "stock"):
        for base in ("6.12", "6.1"):
            kconfig.merge(
                *Request("virtual", base, 1, False, project_folder(), Path(), variant).fragments
            )


def test_what_only_arm64_has_is_off_on_x86_64() -> None:
    folder = project_folder() / "kernel-patches" / "configs"
    names = ("virtual.config", "virtual-6.1.config", "check.config", "check-x86_64.config")
    merged = kconfig.parse(kconfig.merge(*(folder / name for name in names)), "merged")
    own = {name: value for name, value in merged.items() if name.startswith("CONFIG_ARM64_")}
    assert len(own) >= 2
    assert set(own.values()) == {"n"}
