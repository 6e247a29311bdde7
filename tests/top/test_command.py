"""``farm top`` at a real night of another process: it runs, is killed, and is taken up again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.errors import BenchError
from farm.nightly.pulse import PULSE_NAME
from farm.top.serve import serving
from tests.figures.replay import ENVIRONMENT
from tests.waiting import wait_until

from .nights import stored

ROOT = Path(__file__).resolve().parents[2]
FARM = str(Path(sys.executable).with_name("farm"))


def farm_top(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FARM, "top", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def told(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(farm_top(*arguments, "--json").stdout)
    return found


@pytest.fixture
def talking_board(tmp_path: Path) -> Iterator[Path]:
    """The environment of a board that says a recorded console, and answers nothing."""
    played = tmp_path / "played"
    played.mkdir()
    player = subprocess.Popen(
        [sys.executable, "-m", "tests.figures.replayed_boards", "1", str(played)], cwd=ROOT
    )
    wait_until((played / "boards.json").exists, "the player starts")
    (ports,) = json.loads((played / "boards.json").read_text())
    path = tmp_path / "talking.yaml"
    text = ENVIRONMENT.format(number=0, **ports).replace("features: []", "features: [sysrq]")
    path.write_text(text)
    yield path
    player.kill()
    player.wait()


def started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [FARM, "nightly", str(folder / "plan.yaml"), "--out", str(folder / "reports")],
            stdout=log,
            stderr=log,
        )


def test_a_night_of_another_process_killed_and_taken_up_again(
    tmp_path: Path, talking_board: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(
        f"name: talk\nboards: [{talking_board.name}]\nscenarios: [sysrq-c]\nflash: none\n"
    )
    reports = tmp_path / "reports"

    def at_work() -> bool:
        pulses = list(reports.glob(f"nights/*/{PULSE_NAME}"))
        return bool(pulses) and '"stage":"boot"' in pulses[0].read_text()

    night = started(tmp_path)
    try:
        wait_until(at_work, "the board is being booted")
        files = {path: path.stat().st_mtime_ns for path in reports.rglob("journal.jsonl")}
        now = told(reports)
        assert now["state"] == "running"
        assert f"process {night.pid}" in now["told"]
        (board,) = now["boards"]
        assert (board["name"], board["where"]) == ("replayed-0", "kernel booting")
        assert board["cell"]["scenario"] == "sysrq-c"
        assert board["deadline_s"] == 60.0
        assert (now["cells"], now["done"]) == (1, 0)
        assert files == {path: path.stat().st_mtime_ns for path in files}
    finally:
        night.kill()
        night.wait()
    shown = farm_top(reports, "--once")
    assert shown.returncode == 3
    assert "controller gone since" in shown.stdout
    # Its worker has gone with it.
    wait_until(lambda: not workers_of(tmp_path), "the workers end with their controller")
    (reports / "nights").joinpath("not-a-night").mkdir()
    before = told(reports)["night_id"]
    night = started(tmp_path)
    try:
        wait_until(lambda: told(reports)["state"] == "running", "it is taken up again")
        assert told(reports)["night_id"] == before
    finally:
        night.send_signal(signal.SIGINT)
        night.wait(60)
    now = told(reports)
    assert now["state"] == "interrupted"
    assert "goes on with it" in now["told"]


def workers_of(folder: Path) -> list[int]:
    """Processes that write to the logs of workers in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdecimal()
                and (entry / "fd" / "2").readlink().is_relative_to(folder)
                and "forkserver" in (entry / "cmdline").read_text()
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_pages_are_kept_and_one_of_them_does_not_load_itself_again(tmp_path: Path) -> None:
    night = stored(tmp_path)
    page = tmp_path / "live page.html"
    done = farm_top(night, "--html", page, "--once")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert '<meta http-equiv="refresh" content="2">' in text
    assert 'href="live%20page-still.html"' in text
    still = (tmp_path / "live page-still.html").read_text()
    assert 'http-equiv="refresh"' not in still
    assert 'href="live%20page.html"' in still


def test_plain_lines_until_ctrl_c(tmp_path: Path) -> None:
    night = stored(tmp_path)
    process = subprocess.Popen(
        [FARM, "top", str(night), "--every", "0.2"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "running" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 0


def asked(address: str, path: str, method: str = "GET", host: str = "") -> tuple[int, str]:
    port = int(address.rpartition(":")[2].strip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_what_is_served_is_two_pages_to_this_computer_alone() -> None:
    with serving(0, lambda refreshing: f"refreshing: {refreshing}") as address:
        assert address.startswith("http://127.0.0.1:")
        assert asked(address, "/") == (200, "refreshing: True")
        assert asked(address, "/still") == (200, "refreshing: False")
        assert asked(address, "/../etc/passwd")[0] == 404
        assert asked(address, "/", "POST")[0] == 501
        assert asked(address, "/", host="evil.example:80")[0] == 421
        assert asked(address, "/", host="localhost:80")[0] == 200
        with pytest.raises(BenchError, match="cannot listen on"):
            serving(int(address[17:].strip("/")), lambda _: "").__enter__()


def test_help_waits_for_no_labgrid() -> None:
    code = (
        "import sys; from farm.cli import main; sys.argv = ['farm', 'top', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'labgrid', 'numpy', 'sqlalchemy', 'grpc'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("wrong", [["nowhere"], [".", "--serve", "70000"]])
def test_wrong_use(tmp_path: Path, wrong: list[str]) -> None:
    done = subprocess.run(
        [FARM, "top", *wrong], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
