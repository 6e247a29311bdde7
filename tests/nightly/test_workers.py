"""Workers: forked, they share what they load, hear their controller, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from farm.nightly.workers import WorkerProcess, start_worker
from tests.figures.processes import memory
from tests.figures.replay import replay

ROOT = Path(__file__).resolve().parents[2]
ECHO = "tests.nightly.echoing_worker"
# One that loads everything by itself has 57 MiB.
OWN_KIB = 20 << 10


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "log").open("wb") as file:
        yield file


def said(worker: WorkerProcess, line: str) -> str:
    worker.stdin.write(line.encode() + b"\n")
    worker.stdin.flush()
    answer = b""
    while not answer.endswith(b"\n"):
        piece = os.read(worker.stdout.fileno(), 4096)
        assert piece, "the worker has ended"
        answer += piece
    return answer.decode().strip()


def ended(worker: WorkerProcess) -> int:
    try:
        return worker.wait(20)
    finally:
        worker.stdin.close()
        worker.stdout.close()


def test_a_worker_hears_answers_and_ends_with_its_exit_code(log: IO[bytes], tmp_path: Path) -> None:
    environment = {**os.environ, "LG_USERNAME": "night"}
    worker = start_worker("one", log, environment, ECHO)
    assert said(worker, "env LG_USERNAME") == "night"
    assert Path(f"/proc/{worker.pid}/comm").read_text() == "one\n"
    # Ctrl-C in the controller's terminal is not for it.
    assert os.getsid(worker.pid) == worker.pid
    assert worker.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.1)
    said(worker, "complain")
    worker.stdin.write(b"exit 7\n")
    worker.stdin.flush()
    assert ended(worker) == 7
    assert worker.poll() == 7
    worker.send_signal(signal.SIGINT)  # nobody is there any more
    log.flush()
    assert "complaint" in (tmp_path / "log").read_text()


def test_a_signal_that_ends_a_worker_is_told(log: IO[bytes]) -> None:
    worker = start_worker("one", log, None, ECHO)
    said(worker, "env HOME")
    worker.kill()
    assert ended(worker) == -signal.SIGKILL


def test_ctrl_c_is_heard_as_in_any_process(log: IO[bytes]) -> None:
    worker = start_worker("one", log, None, ECHO)
    said(worker, "env HOME")
    worker.send_signal(signal.SIGINT)
    assert ended(worker) == 130


def test_workers_share_what_they_load(log: IO[bytes]) -> None:
    workers = [start_worker(f"w{n}", log, None, ECHO) for n in range(3)]
    try:
        loaded = [said(worker, "loaded farm.run.session") for worker in workers]
        assert loaded == ["True"] * 3
        assert all(memory(worker.pid).own_kib < OWN_KIB for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            ended(worker)


def test_workers_are_killed_with_their_controller(tmp_path: Path) -> None:
    text = (
        "import sys, time\nfrom pathlib import Path\n"
        "from farm.nightly.workers import start_worker\n"
        f"with open({str(tmp_path / 'log')!r}, 'wb') as log:\n"
        f"    two = [start_worker(f'w{{n}}', log, None, {ECHO!r}) for n in range(2)]\n"
        "    print(*(one.pid for one in two), flush=True)\n    time.sleep(60)\n"
    )
    controller = subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert controller.stdout is not None
    pids = [int(word) for word in controller.stdout.readline().split()]
    assert len(pids) == 2
    controller.kill()
    controller.communicate()
    end = time.monotonic() + 10
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.05)


def test_no_byte_of_twenty_consoles_is_lost(tmp_path: Path) -> None:
    found = replay(20, 20.0, tmp_path)
    assert found.lost_boards == 0
    assert found.panics > 0
    # At least a cycle of the recording has come from each board.
    assert found.bytes > 20 * 20_000
    assert found.worker_kib < OWN_KIB
    assert found.cpu < 1.0
