"""A stored run judged again: the same verdicts, nothing trusted, nothing written unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import UsageError
from farm.judge import exit_code, summarise
from farm.judge.names import shown
from farm.judge.run_folder import load_run, rejudge, write_judged
from farm.model import Cycle, FindingKind, Run, Verdict

from .cycles import Scene, findings


def store(folder: Path, scenes: list[Scene]) -> Run:
    """Lay a run out as ``farm run`` does."""
    cycles = []
    for number, scene in enumerate(scenes, 1):
        cycle, read = scene.prepared()
        relative = f"cycles/{number:04d}-sysrq-c"
        for capture in cycle.captures:
            path = folder / relative / capture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read(capture))
        (folder / relative).mkdir(parents=True, exist_ok=True)
        (folder / relative / "input.json").write_text(cycle.model_dump_json())
        cycles.append(
            Cycle(
                number=number,
                scenario=cycle.scenario,
                repeat=cycle.repeat,
                folder=relative,
                started="2026-01-01T00:00:00.000+00:00",
                stages_s={"boot": 1.0, "collect": 0.5},
                wall_s=2.0,
                board_s=1.5,
                input=cycle,
                result=scene.judge(),
            )
        )
    verdict, totals = summarise(cycle.result.verdict for cycle in cycles)
    run = Run(
        run_id="20260101-000000-abcd",
        farm_version="0",
        started="2026-01-01T00:00:00.000+00:00",
        board="board",
        virtual=True,
        lg_env="devices/virtual.yaml",
        command=("farm", "run"),
        wall_s=4.0,
        board_s=3.0,
        wall_to_board=1.333,
        verdict=verdict,
        totals=totals,
        planned_cycles=len(scenes),
        cycles=tuple(cycles),
    )
    (folder / "run.json").write_text(run.model_dump_json())
    return run


def failing() -> Scene:
    scene = Scene()
    scene.records[2] = None
    return scene


def farm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "140", "NO_COLOR": "1"},
    )


def test_judging_again_comes_to_the_same_verdicts(tmp_path: Path) -> None:
    run = store(tmp_path, [Scene(), failing(), Scene(form="raw")])
    assert rejudge(tmp_path) == run
    assert load_run(tmp_path) == run
    assert run.verdict is Verdict.FAIL
    assert run.totals == {"cycles": 3, "PASS": 2, "FAIL": 1, "ERROR": 0, "SKIP": 0}


def test_new_policy_in_an_input_changes_the_verdict(tmp_path: Path) -> None:
    store(tmp_path, [Scene()])
    path = tmp_path / "cycles/0001-sysrq-c/input.json"
    stored = json.loads(path.read_text())
    stored["policy"]["required"] = ["adreno-gpu"]
    path.write_text(json.dumps(stored))
    run = rejudge(tmp_path)
    assert run.verdict is Verdict.FAIL
    assert load_run(tmp_path).verdict is Verdict.PASS
    write_judged(tmp_path, run)
    assert load_run(tmp_path) == run
    result = json.loads((tmp_path / "cycles/0001-sysrq-c/result.json").read_text())
    assert result["verdict"] == "FAIL"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_a_changed_capture_is_an_error_that_names_the_file(tmp_path: Path, change: str) -> None:
    store(tmp_path, [Scene()])
    path = tmp_path / "cycles/0001-sysrq-c/captures/pstorefs/0002.bin"
    if change == "flip":
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    result = rejudge(tmp_path).cycles[0].result
    assert result.verdict is Verdict.ERROR
    assert any(
        "captures/pstorefs/0002.bin" in one.message
        for one in findings(result, FindingKind.CAPTURE_INCOMPLETE)
    )


@pytest.mark.parametrize("escape", ["../../../secret", "/etc/passwd", "captures/../../x", ""])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, escape: str) -> None:
    store(tmp_path, [Scene()])
    path = tmp_path / "cycles/0001-sysrq-c/input.json"
    stored = json.loads(path.read_text())
    stored["captures"][1]["path"] = escape
    path.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="leads out"):
        rejudge(tmp_path)


def test_a_symlink_that_leads_out_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    store(run, [Scene()])
    path = run / "cycles/0001-sysrq-c/captures/pstorefs/0002.bin"
    outside = tmp_path / "outside.bin"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(UsageError, match="leads out"):
        rejudge(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "run.json"),
        ("[]", "run.json"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 1}', "run_id"),
    ],
)
def test_what_is_no_run_is_said_to_be_none(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("verdicts", "overall", "code"),
    [
        ("PASS PASS", Verdict.PASS, 0),
        ("PASS SKIP", Verdict.PASS, 0),
        ("PASS ERROR SKIP", Verdict.ERROR, 3),
        ("PASS ERROR FAIL", Verdict.FAIL, 1),
        ("SKIP", Verdict.SKIP, 3),
        ("", Verdict.SKIP, 3),
    ],
)
def test_many_cycles_have_one_verdict(verdicts: str, overall: Verdict, code: int) -> None:
    found, totals = summarise(Verdict(word) for word in verdicts.split())
    assert found is overall
    assert totals["cycles"] == len(verdicts.split())
    assert exit_code(found) == code


def test_an_unfinished_run_is_no_success() -> None:
    assert exit_code(Verdict.PASS, unfinished=True) == 3
    assert exit_code(Verdict.FAIL, unfinished=True) == 1


def test_the_command_judges_prints_and_writes_only_when_asked(tmp_path: Path) -> None:
    store(tmp_path, [Scene(), failing()])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = farm("judge", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "panicdump-sample.1" in done.stdout
    assert "FAIL" in done.stdout
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    done = farm("judge", str(tmp_path), "--json", "--write")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["verdict"] == "FAIL"
    assert (tmp_path / "cycles/0002-sysrq-c/result.json").exists()


def test_the_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    done = farm("judge", str(tmp_path))
    assert done.returncode == 2
    assert "run.json" in done.stderr


def test_a_passing_run_ends_with_0(tmp_path: Path) -> None:
    store(tmp_path, [Scene()])
    assert farm("judge", str(tmp_path)).returncode == 0


@given(st.text(st.characters(codec=None), max_size=40))
def test_any_name_can_be_shown(text: str) -> None:
    once = shown(text)
    assert once.isascii()
    assert shown(once) == once
