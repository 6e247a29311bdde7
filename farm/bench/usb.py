"""The board's USB cable: which device on which host is the board, and an agent that talks to it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attr
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.resource.common import Resource
from labgrid.util.agentwrapper import AgentError, AgentException, AgentWrapper

from farm.bench import hooks
from farm.bench.qualcomm_udev import NetworkQualcommUSBDevice, QualcommUSBDevice
from farm.errors import BenchError, DeadlineError, UsageError
from farm.qualcomm.identity import Mode

PART = "usb"
_POLL_S = 0.1
_CALL_DEADLINE_S = 60.0
_LIST_DEADLINE_S = 10.0
_PIECE_BYTES = 1 << 20


@target_factory.reg_resource
@attr.s(eq=False)
class BoardUsb(Resource):  # type: ignore[misc]  # labgrid has no types
    """The board's USB device in EDL, crash mode and fastboot, by its serial number or USB path.

    One of ``serial`` and ``path`` (as the kernel writes it: 1-2.3) tells the board from others;
    ``host`` is where the cable ends, empty for this one. A board's serial number is the same in
    all modes, or the path has to be given.
    """

    serial: str = attr.ib(default="", converter=str)
    path: str = attr.ib(default="", converter=str)
    host: str = attr.ib(default="", converter=str)


@dataclass(frozen=True)
class Found:
    """A device of the board's."""

    mode: Mode
    path: str
    serial: str
    address: int


@dataclass(frozen=True)
class ReadBack:
    """What a read of memory brought and cost."""

    size_bytes: int
    received_bytes: int
    seconds: float
    sha256: str


def _raised(error: dict[str, Any]) -> BenchError:
    return BenchError(error["message"], part=error["part"], next_step=error["next_step"])


@target_factory.reg_driver
@attr.s(eq=False)
class UsbBoot(Driver):  # type: ignore[misc]  # labgrid has no types
    """Talks to the board's boot programs through an agent on the cable's host."""

    # Static, found by udev here, or found by udev on an exporter.
    bindings = {  # noqa: RUF012  # labgrid's way
        "usb": {BoardUsb, QualcommUSBDevice, NetworkQualcommUSBDevice}
    }

    # A command that prints NAME=VALUE lines which the agent needs in its environment.
    environment: list[str] = attr.ib(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._agent: Any = None
        self._proxy: Any = None

    def on_deactivate(self) -> None:
        """End the agent."""
        self._drop_agent()

    def _drop_agent(self) -> None:
        agent, self._agent, self._proxy = self._agent, None, None
        if agent is not None and agent.agent is not None:
            # Asking it to close waits for a call that may never end.
            agent.agent.kill()
            agent.agent.wait()
            agent.agent.stdin.close()
            agent.agent.stdout.close()
            agent.agent = None

    @property
    def _place(self) -> tuple[str, str]:
        serial = str(self.usb.serial or "")
        path = str(self.usb.path or "") if not serial else ""
        if not serial and not path:
            raise UsageError(
                f"target {self.target.name}: BoardUsb has neither serial nor path",
                "Give the board's serial number, or the USB path that `farm doctor` shows.",
            )
        return serial, path

    @property
    def host(self) -> str:
        """Where the cable ends; empty for this host."""
        return str(self.usb.host or "")

    def _call(
        self, name: str, *arguments: Any, deadline_s: float = _CALL_DEADLINE_S, attempts: int = 4
    ) -> Any:
        """Call the agent; one that does not answer in time is killed.

        One that dies without an answer, as when the device goes while it is opened, is replaced;
        the deadline is for all of them.
        """
        end = time.monotonic() + deadline_s
        if self._agent is None:
            self._start_agent()
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        proxy = self._proxy

        def run() -> None:
            try:
                answers.put((getattr(proxy, name)(*arguments), None))
            except Exception as error:  # whatever became of the agent
                answers.put((None, error))

        threading.Thread(target=run, name="usb-agent", daemon=True).start()
        try:
            answer, error = answers.get(timeout=deadline_s)
        except queue.Empty:
            self._drop_agent()
            raise DeadlineError(
                f"{self.describe()}: {name.replace('_', ' ')}", part=PART, deadline_s=deadline_s
            ) from None
        except BaseException:
            self._drop_agent()
            raise
        if error is not None:
            self._drop_agent()
            if isinstance(error, json.JSONDecodeError) and attempts > 1:
                left_s = max(0.0, end - time.monotonic())
                return self._call(name, *arguments, deadline_s=left_s, attempts=attempts - 1)
            if isinstance(error, AgentException | AgentError | json.JSONDecodeError | OSError):
                raise BenchError(
                    f"{self.describe()}: the agent failed: {error}",
                    part=PART,
                    next_step="Is this farm installed on the host of the USB cable?",
                ) from error
            raise error
        if "error" in answer:
            raise _raised(answer["error"])
        return answer["answer"]

    def _start_agent(self) -> None:
        said = hooks.run_command(self.environment) if self.environment else ""
        wanted = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        before = {name: os.environ.get(name) for name in wanted}
        # The wrapper hands on the environment as it is just now.
        os.environ.update(wanted)
        try:
            self._agent = AgentWrapper(self.host or None)
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchError(
                f"{self.describe()}: the agent does not start: {error}", part=PART
            ) from error
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self._proxy = self._agent.load("usb_agent", str(Path(__file__).parent))

    def describe(self) -> str:
        """The board, in an error's words."""
        serial, path = self._place
        where = f" on {self.host}" if self.host else ""
        return " ".join(filter(None, ["usb", path, serial])) + where

    def release(self) -> None:
        """Let go of the device."""
        if self._agent is not None:
            with contextlib.suppress(BenchError):
                self._call("close", deadline_s=_LIST_DEADLINE_S)

    def on_the_bus(self) -> list[Found]:
        """Every boot mode that the cable's host sees, this board's or not; raises BenchError."""
        return [
            Found(Mode(one["mode"]), one["path"], one["serial"], one["address"])
            for one in self._call("devices", deadline_s=_LIST_DEADLINE_S)
        ]

    def find(self) -> Found | None:
        """The board's device, None if it shows none; raises BenchError when several match."""
        serial, path = self._place
        matching = [
            one
            for one in self._call("devices", deadline_s=_LIST_DEADLINE_S)
            if (not serial or one["serial"].lower() == serial.lower())
            and (not path or one["path"] == path)
        ]
        if len(matching) > 1:
            raise BenchError(f"{self.describe()}: {len(matching)} devices match", part=PART)
        for one in matching:
            return Found(Mode(one["mode"]), one["path"], one["serial"], one["address"])
        return None

    def wait_for(
        self, modes: frozenset[Mode], deadline_s: float, what: str, *, not_address: int = 0
    ) -> Found:
        """Wait until the board shows one of ``modes``; raises DeadlineError."""
        end = time.monotonic() + deadline_s
        while True:
            found = self.find()
            if found is not None and found.mode in modes and found.address != not_address:
                return found
            if time.monotonic() > end:
                seen = "nothing" if found is None else f"{found.mode.value} at {found.path}"
                raise DeadlineError(
                    f"{self.describe()}: {what}",
                    part=PART,
                    deadline_s=deadline_s,
                    last=f"on the bus: {seen}",
                )
            # The bus has no event that would reach here from another host.
            threading.Event().wait(_POLL_S)

    # -- what the agent does for the drivers

    def to_file(self, target: Path, deadline_s: float, name: str, *arguments: Any) -> ReadBack:
        """Call a function that reads memory into a file, here or on the cable's host."""
        serial, path = self._place
        remote = str(target)
        if self.host:
            remote = f"{self._call('temporary')}/memory"
        answer = self._call(name, serial, path, *arguments, remote, deadline_s=deadline_s)
        if self.host:
            self._fetch(remote, answer["bytes"], target)
        return ReadBack(
            answer["bytes"], answer["received_bytes"], answer["seconds"], answer["sha256"]
        )

    def _fetch(self, remote: str, size: int, target: Path) -> None:
        with target.open("wb") as file:
            for at in range(0, size, _PIECE_BYTES):
                text = self._call("piece", remote, at, min(_PIECE_BYTES, size - at))
                file.write(base64.b64decode(text))

    def call(self, name: str, *arguments: Any, deadline_s: float = _CALL_DEADLINE_S) -> Any:
        """Call a function of the agent's on the board's device."""
        return self._call(name, *self._place, *arguments, deadline_s=deadline_s)

    def tool(
        self, command: list[str], deadline_s: float, what: str, *, good: Callable[[str], bool]
    ) -> str:
        """Run a program on the cable's host; raises BenchError with its last words.

        ``good`` looks at what it said: qdl ends with 0 after some failures.
        """
        answer = self._call("run_tool", command, deadline_s, deadline_s=deadline_s + 10.0)
        text = str(answer["output"])
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        if answer["late"]:
            raise DeadlineError(
                f"{self.describe()}: {what}", part=PART, deadline_s=deadline_s, last=last
            )
        if answer["code"] != 0 or not good(text):
            raise BenchError(
                f"{self.describe()}: {what}: {command[0]} ended with {answer['code']}: {last}",
                part=PART,
            )
        return text

    def bus_devices(self) -> int:
        """How many boards in EDL are on that bus: an old qdl takes the first."""
        return sum(one["mode"] == Mode.EDL for one in self._call("devices"))
