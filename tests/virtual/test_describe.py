"""`farm virtual describe`: one more virtual board, beside the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from labgrid import Environment

from farm.bench.environment import read_options
from tests.bench.virtual_board import DEVICES
from tests.virtual.bench import farm_virtual


@pytest.mark.parametrize("name", ["virtual-3", "virtual-4"])
def test_the_boards_beside_the_first_are_as_described(name: str, tmp_path: Path) -> None:
    stored = yaml.safe_load((DEVICES / f"{name}.yaml").read_text())
    serial = stored["targets"]["main"]["resources"]["NetworkSerialPort"]["port"]
    ports = ("--serial-port", str(serial), "--power-port", str(serial + 1))
    file = tmp_path / "again.yaml"
    done = farm_virtual("describe", name, "--to", str(file), *ports)
    assert done.returncode == 0, done.stderr
    again = yaml.safe_load(file.read_text())
    # Elsewhere, the programmer has its whole path.
    again["targets"]["main"]["drivers"]["Edl"]["programmer"] = "virtual-programmer.elf"
    assert again == stored


def test_a_new_board_loads_and_shares_no_port(tmp_path: Path) -> None:
    for file in DEVICES.glob("virtual*.yaml"):
        shutil.copy(file, tmp_path)
    for name in ("one", "two"):
        file = tmp_path / f"{name}.yaml"
        assert farm_virtual("describe", name, "--to", str(file)).returncode == 0
        assert read_options(file).board == name
        assert Environment(str(file)).get_target("main") is not None
    targets = [yaml.safe_load(file.read_text())["targets"]["main"] for file in tmp_path.glob("*")]
    ports = [one["resources"]["NetworkSerialPort"]["port"] for one in targets]
    ports += [one["resources"]["NetworkPowerPort"]["host"] for one in targets]
    assert len(set(ports)) == len(ports)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "virtual-9.yaml"
    file.write_text("mine")
    done = farm_virtual("describe", "virtual-9", "--to", str(file))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert file.read_text() == "mine"
    assert farm_virtual("describe", "../x", "--to", str(tmp_path / "x")).returncode == 2
