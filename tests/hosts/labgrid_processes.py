"""labgrid's own coordinator and exporters as processes on loopback, to be killed and started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.waiting import wait_until

BIN = Path(sys.executable).parent
DEADLINE_S = 20.0
# A process of labgrid's whose wall clock is wrong by so many seconds.
_SHIFTED = (
    "import sys, time; real = time.time; time.time = lambda: real() + {shift_s}; "
    "from labgrid.remote.{module} import main; main()"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Process:
    """A process that can be killed and started again; its output goes to a file."""

    def __init__(self, name: str, command: list[str], folder: Path, ready: str) -> None:
        self._command, self._folder, self._ready = command, folder, ready
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        known = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        if wait:
            wait_until(
                lambda: self._ready in self.log.read_bytes()[known:].decode(),
                f"{self.log} does not say {self._ready!r}",
            )

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Have it do nothing more until it is killed."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        self._process.wait(DEADLINE_S)
        self._process = None


class Lab:
    """A coordinator, and exporters by name."""

    def __init__(self, folder: Path, shift_s: float = 0.0) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.coordinator = Process(
            "coordinator",
            self._command("coordinator", ["--listen", self.address], shift_s),
            folder,
            "listening on",
        )
        self.exporters: dict[str, Process] = {}

    @staticmethod
    def _command(module: str, arguments: list[str], shift_s: float) -> list[str]:
        if shift_s:
            text = _SHIFTED.format(shift_s=shift_s, module=module)
            return [sys.executable, "-c", text, *arguments]
        return [str(BIN / f"labgrid-{module}"), *arguments]

    def exports(
        self,
        name: str,
        groups: Mapping[str, Any],
        *,
        start: bool = True,
        shift_s: float = 0.0,
    ) -> Process:
        """An exporter of these resources by group; written anew, it offers others."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(groups)), encoding="utf-8")
        if name not in self.exporters:
            arguments = ["-c", self.address, "-n", name, "--hostname", "127.0.0.1", str(path)]
            self.exporters[name] = Process(
                name, self._command("exporter", arguments, shift_s), self.folder, "Exporter ready"
            )
        if start:
            self.exporters[name].start()
        return self.exporters[name]

    def restart_coordinator(self, down_s: float = 0.0, number: int = signal.SIGKILL) -> None:
        """As a power cut does it; its exporters end by themselves and are started again."""
        self.coordinator.kill(number)
        time.sleep(down_s)
        self.coordinator.start()
        for one in self.exporters.values():
            one.kill()
            one.start(wait=False)

    def client(self, *arguments: str, user: str = "somebody", check: bool = True) -> str:
        """labgrid's own client, as another user on another host."""
        done = subprocess.run(
            [str(BIN / "labgrid-client"), "-x", self.address, *arguments],
            env={**os.environ, "LG_USERNAME": user, "LG_HOSTNAME": f"{user}-desk"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        for one in [*self.exporters.values(), self.coordinator]:
            one.kill()


@contextmanager
def lab(shift_s: float = 0.0) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="farm-lab-"))
    made = Lab(folder, shift_s)
    try:
        made.coordinator.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
