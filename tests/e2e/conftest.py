"""Virtual boards of the tests' own, and the real ``farm`` command run against them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from farm.virtual.describe import environment_text

ROOT = Path(__file__).resolve().parents[2]
FARM = str(Path(sys.executable).with_name("farm"))
COMMAND_TIMEOUT_S = 180.0


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass
class Board:
    """A virtual board with its own name, ports and labgrid environment."""

    name: str
    lg_env: Path
    up_arguments: list[str]
    environment: dict[str, str]
    out: Path

    def farm(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """Run ``farm`` to its end."""
        return subprocess.run(
            [FARM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self) -> None:
        """Start the board's process (powered off)."""
        done = self.farm(*self.up_arguments)
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        """Stop the board's process."""
        self.farm("virtual", "down", "--name", self.name)

    def status(self) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the answer of ``farm virtual status --json``."""
        done = self.farm("virtual", "status", "--name", self.name, "--json")
        return done.returncode, json.loads(done.stdout)

    def kill(self) -> None:
        """Kill the board's process as a power cut to the bench would."""
        os.kill(self.status()[1]["pid"], signal.SIGKILL)

    def fault(self, *arguments: str) -> None:
        """Switch a fault on."""
        done = self.farm("virtual", "fault", *arguments, "--name", self.name)
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> Outcome:
        """``farm run`` on this board, to its end."""
        running = self.start(*arguments)
        return running.wait()

    def start(self, *arguments: str, file_limit_bytes: int | None = None) -> Running:
        """Start ``farm run`` on this board; its folder is under ``out``."""
        limit = [] if file_limit_bytes is None else ["prlimit", f"--fsize={file_limit_bytes}"]
        process = subprocess.Popen(
            [
                *limit,
                FARM,
                "run",
                "--lg-env",
                str(self.lg_env),
                "--out",
                str(self.out),
                "--json",
                *arguments,
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Running(process)


@dataclass
class Outcome:
    """How ``farm run`` ended."""

    code: int
    run: dict[str, Any]
    stderr: str

    @property
    def cycles(self) -> list[dict[str, Any]]:
        """The cycles of the run's account."""
        cycles: list[dict[str, Any]] = self.run["cycles"]
        return cycles

    def findings(self, kind: str) -> list[dict[str, Any]]:
        """The findings of this kind, of all cycles."""
        return [f for c in self.cycles for f in c["result"]["findings"] if f["kind"] == kind]


@dataclass
class Running:
    """A ``farm run`` in progress."""

    process: subprocess.Popen[str]
    _lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        def read() -> None:
            assert self.process.stderr is not None
            for line in self.process.stderr:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait until a line of progress holds ``text``."""
        with self._news:
            seen = self._news.wait_for(lambda: any(text in line for line in self._lines), timeout_s)
        if not seen:
            self.process.send_signal(signal.SIGINT)
            raise AssertionError(f"{text!r} did not appear in:\n{''.join(self._lines)}")

    def wait(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Outcome:
        """Wait for the end."""
        assert self.process.stdout is not None
        try:
            text = self.process.stdout.read()
            code = self.process.wait(timeout_s)
        finally:
            self.process.kill()
        self._reader.join(10)
        stderr = "".join(self._lines)
        assert text, f"exit code {code}, no account:\n{stderr}"
        return Outcome(code, json.loads(text), stderr)


# By module: a board that nobody needs any more still has a process and a port of the USB bus.
@pytest.fixture(scope="module")
def make_board() -> Iterator[Callable[..., Board]]:
    """Return a function that makes a board from devices/virtual.yaml, with other ports."""
    # Not pytest's own folder: the path of a Unix socket must stay below 108 bytes.
    root = Path(tempfile.mkdtemp(prefix="farm-e2e-"))
    environment = {**os.environ, "PANIC_FARM_STATE": str(root / "state")}
    boards: list[Board] = []

    def make(name: str, *options: str) -> Board:
        serial_port, power_port = free_ports(2)
        lg_env = root / f"{name}.yaml"
        text = environment_text(name, serial_port, power_port, root, options)
        lg_env.write_text(text, encoding="utf-8")
        start = yaml.safe_load(text)["targets"]["main"]["options"]["bench"]["start"]
        up = [word.replace("{board}", name) for word in start[1:]]
        board = Board(name, lg_env, up, environment, root / "reports" / name)
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.down()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def board(make_board: Callable[..., Board]) -> Board:
    """A board without ECC, brought up once."""
    made = make_board("plain")
    made.up()
    return made
