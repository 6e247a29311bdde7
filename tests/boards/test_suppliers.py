"""What a board's console depends on, from trees of the kernel's source, and who drives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from farm.boards.suppliers import suppliers_of_console, without_driver
from tests.boards.test_overlays import BOARDS, with_overlay

DRIVERS = {
    "sdm845-db845c": {"qcom,geni-debug-uart", "qcom,gcc-sdm845", "qcom,sdm845-pinctrl"},
    "qrb2210-rb1": {"qcom,geni-debug-uart", "qcom,gcc-qcm2290", "qcom,qcm2290-tlmm"},
    "apq8016-sbc": {"qcom,msm-uartdm-v1.4", "qcom,gcc-msm8916", "qcom,msm8916-pinctrl"},
}


def image_of(names: set[str]) -> bytes:
    return b"\0".join(name.encode() for name in sorted(names)) + b"\0"


@pytest.mark.parametrize("board", BOARDS)
def test_console_timers_and_psci_are_among_what_is_needed(board: str) -> None:
    found = {name for one in suppliers_of_console(with_overlay(board)) for name in one.compatible}
    assert found >= {"arm,armv8-timer", "arm,psci-1.0"} | DRIVERS.get(board, set())


@pytest.mark.parametrize("board", BOARDS)
def test_nothing_that_only_a_ring_leads_to_is_needed(board: str) -> None:
    found = {name for one in suppliers_of_console(with_overlay(board)) for name in one.compatible}
    # Clocked by the clock controller, which it clocks.
    assert not [name for name in found if "-phy" in name or "ufshc" in name or "iommu" in name]


def test_a_missing_driver_is_named_by_path_and_compatible() -> None:
    blob = with_overlay("qrb2210-rb1")
    names = {one.compatible[0] for one in suppliers_of_console(blob)}
    assert without_driver(blob, image_of(names)) == ()
    (missing,) = without_driver(blob, image_of(names - {"qcom,qcm2290-tlmm"}))
    assert missing.path.startswith("/soc@0/pinctrl@")
    assert missing.compatible == ("qcom,qcm2290-tlmm",)


def test_the_command_names_it_and_ends_with_2(tmp_path: Path) -> None:
    image = tmp_path / "Image"
    names = {one.compatible[0] for one in suppliers_of_console(with_overlay("sdm845-db845c"))}
    image.write_bytes(image_of(names - {"qcom,gcc-sdm845"}))
    words = ["board", "check", "sdm845-db845c", "--kernel", str(image), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    said = json.loads(done.stdout)
    assert said["conflicts"] == []
    assert len(said["without_driver"]) == 1
    assert "qcom,gcc-sdm845" in said["without_driver"][0]
