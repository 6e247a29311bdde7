"""`farm board new` for boards that devices/ does not have: what it writes passes the same tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from labgrid import Environment

from farm.bench.environment import read_options
from farm.boards.chips import facts_of
from farm.boards.place import faults, memory_of
from farm.boards.survey import examine
from farm.boards.tree import parse_tree
from tests.boards.test_overlays import BOARDS, blob_of, with_overlay

# One of each kind: a node of its own, one that must make way, a chip that is not known, 32 bits.
OTHERS = (
    "sm8250-xiaomi-pipa",
    "sdm845-oneplus-enchilada",
    "msm8916-longcheer-l8150",
    "sc8280xp-crd",
    "qcom-msm8974-sony-xperia-rhine-amami",
)


def board_new(board: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["board", "new", board, "--out", str(out), *options]
    return subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("board", OTHERS)
def test_a_board_that_is_not_described_gets_a_description_that_passes(
    board: str, tmp_path: Path
) -> None:
    assert board not in BOARDS
    dtb = tmp_path / f"{board}.dtb"
    dtb.write_bytes(blob_of(board))
    out = tmp_path / "devices"
    done = board_new(
        str(dtb), out, "--serial", "bench:4002", "--power", "tac", "--usb-serial", "1234", "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    options = read_options(out / f"{board}.yaml")
    assert options.board == board
    assert options.assumptions
    assert options.policy.required
    target = Environment(str(out / f"{board}.yaml")).get_target("main")
    assert target.get_driver("PanicFarmStrategy", activate=False) is not None
    tree = parse_tree(with_overlay(board, (out / f"{board}.dtso").read_text()), dtb)
    (node,) = tree.ramoops
    assert node.area.paddr == said["paddr"]
    assert faults(node.area, node.sizes, memory_of(tree, facts_of(tree))) == ()


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    first = board_new("sm8250-xiaomi-pipa", tmp_path)
    assert first.returncode == 0, first.stderr
    kept = (tmp_path / "sm8250-xiaomi-pipa.yaml").read_text()
    second = board_new("sm8250-xiaomi-pipa", tmp_path, "--power", "tac")
    assert second.returncode == 2
    assert "already there" in second.stderr
    assert (tmp_path / "sm8250-xiaomi-pipa.yaml").read_text() == kept
    third = board_new("sm8250-xiaomi-pipa", tmp_path, "--power", "tac", "--force")
    assert third.returncode == 0, third.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("no-such-board",), "no Qualcomm board 'no-such-board'"),
        (("no/such.dtb",), "cannot be read"),
        (("sdm845-db845c", "--ram", "0x80000000"), "START+SIZE"),
        (("sdm845-db845c", "--ram", "0x80000000+0x1000"), "no place for ramoops"),
        (("sdm845-db845c", "--power", "magic"), "one of qcomlt, tac, network"),
        (("sdm845-db845c", "--serial", "nowhere"), "HOST:PORT"),
    ],
)
def test_wrong_answers_are_named(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = board_new(options[0], tmp_path, *options[1:])
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_board_of_its_own_ramoops_in_conflict_is_listed_with_both_regions() -> None:
    found = examine(blob_of("msm8996-xiaomi-gemini"), Path("msm8996-xiaomi-gemini.dtb"))
    assert any(
        "ramoops@92900000 [0x92900000, 0x92a00000) overlaps LK" in one for one in found.conflicts
    )
    assert "ramoops@ac000000" in found.place
