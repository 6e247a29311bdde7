"""Judging and reporting again, from a run's folder alone: the same bytes wherever and whenever."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from .mutation import GOLDEN, NAMES

FARM = str(Path(sys.executable).with_name("farm"))
ELSEWHERE = {
    "TZ": "Asia/Kolkata",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "tr_TR.UTF-8",
    "PYTHONHASHSEED": "4711",
    "COLUMNS": "53",
    "PYTHONUTF8": "0",
}


def unpacked(name: str, folder: Path) -> Path:
    data = lzma.decompress((GOLDEN / f"{name}.tar.xz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def farm(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FARM, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["elf-ecc16"])
def test_judging_and_reporting_elsewhere_changes_no_byte(tmp_path: Path, name: str) -> None:
    here = unpacked(name, tmp_path / "here")
    for words in (("judge", "--write", str(here)), ("report", str(here))):
        done = farm(*words, cwd=tmp_path, TZ="UTC", PYTHONHASHSEED="0")
        assert done.returncode == 0, done.stderr
    before = sums(here)
    assert {"run.json", "report.html", "report.txt"} <= set(before)
    there = tmp_path / "an other plåce" / "deep"
    there.parent.mkdir()
    shutil.move(here, there)
    for words in (("judge", "--write", "."), ("report", ".")):
        done = farm(*words, cwd=there, **ELSEWHERE)
        assert done.returncode == 0, done.stderr
    assert sums(there) == before


def test_decoding_elsewhere_says_the_same(tmp_path: Path) -> None:
    run = unpacked("elf", tmp_path)
    capture = next((run / "cycles").rglob("0001.bin"))
    first = farm("decode", "--json", str(capture), cwd=tmp_path, TZ="UTC", PYTHONHASHSEED="0")
    second = farm("decode", "--json", str(capture), cwd=run, **ELSEWHERE)
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_several_runs_are_judged_at_once(tmp_path: Path) -> None:
    runs = [unpacked(name, tmp_path / name) for name in NAMES]
    done = farm("judge", "--json", *map(str, runs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [Path(one["folder"]).name for one in said] == list(NAMES)
    assert {one["verdict"] for one in said} == {"PASS"}
    assert not any(one["changed_cycles"] for one in said)


def test_a_verdict_that_is_not_as_stored_is_told_of_several_runs(tmp_path: Path) -> None:
    runs = [unpacked(name, tmp_path / name) for name in NAMES[:2]]
    next((runs[1] / "cycles").rglob("0003.bin")).unlink()
    done = farm("judge", *map(str, runs), cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 3, done.stderr
    assert "stored as PASS; other verdicts in cycles 1" in done.stdout
    assert "2 runs, 4 cycles: 1 verdicts are not as stored" in done.stdout


def test_a_folder_without_a_run_among_several_is_named(tmp_path: Path) -> None:
    run = unpacked("raw", tmp_path / "raw")
    done = farm("judge", str(run), str(tmp_path / "empty"), cwd=tmp_path)
    assert done.returncode == 2
    assert "no run" in done.stdout
    assert "1 runs, 2 cycles: every verdict as stored" in done.stdout
