"""What a controller has of a board: the command, the serial line, the power port."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import serial
from labgrid.driver.power import simplerest

from farm.virtual import lifecycle
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.events import read_events
from farm.virtual.layout import BoardDir

PROMPT = b"root@virtual:~# "
_BOOT_DEADLINE_S = 30.0
_CLI_DEADLINE_S = 60.0
_RUN = """
import sys
from farm.errors import FarmError
from farm.virtual.cli import app
try:
    app(prog_name="farm virtual")
except FarmError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def farm_virtual_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", _RUN, *arguments]


def farm_virtual(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        farm_virtual_command(*arguments),
        capture_output=True,
        text=True,
        timeout=_CLI_DEADLINE_S,
        check=False,
    )


class Console:
    """The serial line, as a controller sees it."""

    def __init__(self, url: str) -> None:
        self.port = serial.serial_for_url(url, timeout=0.2)
        self.seen = bytearray()

    def expect(self, wanted: bytes, deadline_s: float = _BOOT_DEADLINE_S) -> bytes:
        """Everything up to and including ``wanted``."""
        end = time.monotonic() + deadline_s
        while (at := self.seen.find(wanted)) < 0:
            assert time.monotonic() < end, f"no {wanted!r} in {bytes(self.seen[-2000:])!r}"
            self.seen += self.port.read(1)
            self.seen += self.port.read(self.port.in_waiting)
        found = bytes(self.seen[: at + len(wanted)])
        del self.seen[: at + len(wanted)]
        return found

    def reach_prompt(self) -> None:
        """Wait until the shell waits for a command.

        One that starts just now shows a prompt by itself, and one for the end of the line: what
        is said behind both tells them from the answer to a command.
        """
        # Before it listens, the serial port keeps a few characters only.
        self.port.write(b"\n")
        self.expect(PROMPT)
        self.command(":")

    def command(self, line: str) -> str:
        """What a shell command prints, without what the kernel says on the same line meanwhile."""
        self.port.write(f"dmesg -n 1; echo 'It ''says:'; {line}\n".encode())
        self.expect(b"It says:")
        said = self.expect(PROMPT).removesuffix(PROMPT)
        return said.decode().replace("\r", "").strip()

    def wait_silent(self, seconds: float) -> bytes:
        """What comes in that time."""
        self.port.timeout = seconds
        try:
            return bytes(self.port.read(1))
        finally:
            self.port.timeout = 0.2

    def crash(self) -> None:
        """BREAK, then sysrq c."""
        self.port.send_break(0.01)
        self.port.write(b"c")


class TestBoard:
    """A board that is up."""

    __test__ = False

    def __init__(self, name: str, status: dict[str, Any]) -> None:
        self.name = name
        self.status_at_start = status

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return farm_virtual(*words, "--name", self.name)

    def status(self) -> dict[str, Any]:
        return lifecycle.status(self.name).model_dump(mode="json")

    def fault(self, *words: str) -> None:
        done = self.run("fault", *words)
        assert done.returncode == 0, done.stderr

    def events(self, kind: str) -> list[dict[str, Any]]:
        every = read_events(BoardDir.of(self.name).events)
        return [event for event in every if event["event"] == kind]

    def wait_event(self, kind: str, count: int, deadline_s: float = _BOOT_DEADLINE_S) -> None:
        """Wait until there have been ``count`` events of a kind."""
        follower = subprocess.Popen(
            farm_virtual_command("events", "--follow", "--json", "--name", self.name),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout is not None
        deadline = threading.Timer(deadline_s, follower.kill)
        deadline.start()
        kinds = (json.loads(line)["event"] for line in follower.stdout)
        seen = sum(1 for _ in itertools.islice((k for k in kinds if k == kind), count))
        deadline.cancel()
        follower.kill()
        follower.communicate()
        assert seen == count

    def power(self, on: bool) -> None:
        simplerest.power_set(self.status_at_start["power_host"], None, 0, on)

    def power_is_on(self) -> bool:
        return bool(simplerest.power_get(self.status_at_start["power_host"], None, 0))

    def console(self) -> Console:
        return Console(self.status_at_start["serial_url"])

    def dram(self, paddr: int, size_bytes: int) -> bytes:
        files = [file for file in BoardDir.of(self.name).dram_candidates() if file.exists()]
        with files[0].open("rb") as dram:
            dram.seek(paddr - RAM_BASE_PADDR)
            return dram.read(size_bytes)


MakeBoard = Callable[..., TestBoard]
