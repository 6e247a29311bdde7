"""Every Qualcomm board of the kernel's source, and dtschema on what the overlays make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from farm.boards.survey import survey
from farm.build import kconfig, kernel_trees, pipeline
from tests.boards.test_overlays import BOARDS, blob_of, linux, with_overlay

pytestmark = pytest.mark.boards

# What is known not to fit, with the reason that must be said.
ARM64_BOARDS = 267
TOOLS = Path(sys.executable).parent


def test_every_board_has_a_place_for_ramoops_or_its_conflict_is_named() -> None:
    assert len([one for one in kernel_trees.sources(linux()) if "arm64" in one.parts]) == (
        ARM64_BOARDS
    )
    found = survey(linux(), lambda done, total: None)
    assert len(found) == len(kernel_trees.sources(linux()))
    nowhere = [one for one in found if not one.place]
    # Every fault names the region, and what it is in conflict with or what RAM is known.
    for one in found:
        assert one.place or one.conflicts, one
        for fault in one.conflicts:
            assert "[0x" in fault or "nothing is known" in fault, fault
    arm64 = [one for one in nowhere if not one.board.startswith("qcom-")]
    assert len(arm64) <= 3, arm64


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bindings of reserved memory, with what the series changes in them, processed."""
    assert (TOOLS / "dt-mk-schema").is_file(), "run: make boards"
    folder = tmp_path_factory.mktemp("bindings")
    bindings = linux() / "Documentation" / "devicetree" / "bindings" / "reserved-memory"
    shutil.copytree(bindings, folder / "reserved-memory")
    text = (folder / "reserved-memory" / "ramoops.yaml").read_text()
    assert "panicdump-size" in text, "the series is not applied: run make build"
    file = folder / "processed.json"
    subprocess.run(
        [TOOLS / "dt-mk-schema", "-j", "-o", file, folder / "reserved-memory"], check=True
    )
    return file


def ramoops_faults(blob: bytes, schemas: Path, where: Path) -> list[str]:
    where.write_bytes(blob)
    done = subprocess.run(
        [TOOLS / "dt-validate", "-s", schemas, where], capture_output=True, text=True
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if "ramoops" in line or "Traceback" in line]


@pytest.mark.parametrize("board", BOARDS)
def test_the_overlay_is_clean_by_dtschema(board: str, schemas: Path, tmp_path: Path) -> None:
    assert ramoops_faults(with_overlay(board), schemas, tmp_path / "whole.dtb") == []


def test_dtschema_finds_a_planted_fault(schemas: Path, tmp_path: Path) -> None:
    from tests.bench.virtual_board import DEVICES

    text = (DEVICES / "sdm845-db845c.dtso").read_text()
    bad = text.replace("panicdump-size", "panicdump-sise")
    assert ramoops_faults(with_overlay("sdm845-db845c", bad), schemas, tmp_path / "bad.dtb")
    assert ramoops_faults(blob_of("sdm845-db845c"), schemas, tmp_path / "plain.dtb") == []


def test_the_fragment_on_defconfig_loses_no_option(tmp_path: Path) -> None:
    fragment = pipeline.project_folder() / "kernel-patches" / "configs" / "qualcomm.config"
    names = {**os.environ, "ARCH": "arm64", "CROSS_COMPILE": "aarch64-linux-gnu-"}
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", str(tmp_path)]
    for words in (
        ["make", "-s", f"O={tmp_path}", "defconfig"],
        [*merge, str(tmp_path / ".config"), str(fragment)],
        ["make", "-s", f"O={tmp_path}", "olddefconfig"],
    ):
        subprocess.run(words, cwd=linux(), env=names, check=True, capture_output=True)
    kconfig.check(fragment, tmp_path / ".config")
