"""``farm nightly`` with boards whose bench is not there: a real night, without a board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from farm.history import open_history

ROOT = Path(__file__).resolve().parents[2]
FARM = str(Path(sys.executable).with_name("farm"))


def lost_board(folder: Path, name: str) -> Path:
    """An environment whose serial line nobody serves."""
    config = yaml.safe_load((ROOT / "devices" / "virtual.yaml").read_text(encoding="utf-8"))
    target = config["targets"]["main"]
    target["options"].update({"board": name, "bench": {}, "boot_with": [], "reset": []})
    target["resources"]["NetworkSerialPort"]["port"] = 1
    target["resources"]["NetworkPowerPort"]["host"] = "http://localhost:1/{index}/{value}"
    drivers = target["drivers"]
    drivers["PanicFarmStrategy"]["keys"] = {}
    drivers["Edl"]["programmer"] = str(ROOT / "devices" / "virtual-programmer.elf")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def farm(*arguments: str | Path) -> Any:
    return subprocess.run(
        [FARM, "nightly", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def plan_of(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_board_that_keeps_failing_is_set_aside_and_stays_so(tmp_path: Path) -> None:
    lost_board(tmp_path, "lost")
    plan = plan_of(
        tmp_path,
        "name: lost\nboards: [lost.yaml]\nscenarios: [sysrq-c, lkdtm-bug, lkdtm-panic]\n"
        "flash: none\nretries: 1\nset_aside: {after: 3, training: 2}\n",
    )
    out = tmp_path / "reports"
    first = farm(plan, "--out", out, "--json")
    assert first.returncode == 3, first.stderr
    night = json.loads(first.stdout)
    # The first cell and its retry, then the second one.
    assert [(c["attempt"], c["verdict"], c["counts"]) for c in night["cycles"]] == [
        (1, "ERROR", False),
        (2, "ERROR", True),
        (1, "ERROR", True),
    ]
    assert night["boards"][0]["set_aside"].startswith("3 bench failures in a row")
    assert len(night["holes"]) == 1
    assert night["holes"][0]["reason"].startswith("the board was set aside: 3 bench failures")
    assert {c["blame"] for c in night["cycles"]} == {"bench"}
    second = farm(plan, "--out", out, "--json")
    night = json.loads(second.stdout)
    assert [c["purpose"] for c in night["cycles"]] == ["training"]
    assert not any(c["counts"] for c in night["cycles"])
    assert len(night["holes"]) == 3
    assert second.returncode == 3
    with open_history(out=out) as history:
        assert history.board_states()["lost"].set_aside.startswith("3 bench failures")
        assert [row.verdict for row in history.nights()] == ["SKIP", "ERROR"]
        assert len(history.cycles()) == 2
        assert len(history.cycles(counting_only=False)) == 4


def test_a_dry_run_prints_the_order_and_starts_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        lost_board(tmp_path, name)
    plan = plan_of(
        tmp_path,
        "name: dry\nboards: [one.yaml, two.yaml]\nkernels: [a, b]\n"
        "scenarios: [sysrq-c, lkdtm-bug]\n"
        "channels: [pstorefs, 'pstorefs,sahara']\nrepeats: 2\nbudget: 4m\n",
    )
    out = tmp_path / "reports"
    said = farm(plan, "--out", out, "--dry-run", "--json")
    assert said.returncode == 0, said.stderr
    preview = json.loads(said.stdout)
    assert preview["duration_s"] <= 240
    assert {one["board"] for one in preview["cycles"]} == {"one", "two"}
    assert not (out / "nights").exists()
    shown = farm(plan, "--out", out, "--dry-run")
    assert f"{len(preview['cycles'])} cycles, about" in shown.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nboards: [nowhere.yaml]\n", "nowhere.yaml"),
        ("name: x\nboards: [one.yaml, one.yaml]\n", "two environments are of the board one"),
        ("name: x\nboard: [one.yaml]\n", "did you mean `boards`?"),
    ],
)
def test_wrong_use(tmp_path: Path, text: str, said: str) -> None:
    lost_board(tmp_path, "one")
    done = farm(plan_of(tmp_path, text), "--out", tmp_path / "reports")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "reports" / "nights").exists()


def test_the_schema_is_json() -> None:
    assert "boards" in json.loads(farm("--schema").stdout)["properties"]


def test_help_waits_for_no_database() -> None:
    code = (
        "import sys; from farm.cli import main; sys.argv = ['farm', 'nightly', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'sqlalchemy', 'labgrid', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
