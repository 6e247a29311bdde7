"""The board's USB cable: which device on which host is the board, and an agent that talks to it.

The agent runs here or, over ssh as labgrid does it, on the host where the cable ends. That host
needs python3 and pyusb (Debian: python3-usb) and the tools that flash; the farm's own protocols are
sent along, so that both ends always speak the same.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import queue
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import attr
from labgrid.driver.common import Driver
from labgrid.driver.exception import ExecutionError
from labgrid.factory import target_factory
from labgrid.resource.common import NetworkResource, Resource
from labgrid.resource.remote import RemoteAndroidUSBFastboot
from labgrid.util.agentwrapper import AgentError, AgentException, AgentWrapper, ModuleProxy
from labgrid.util.managedfile import ManagedFile

import farm.errors
from farm.bench import hooks
from farm.bench.hosts import LAUNCHER, checked
from farm.bench.qualcomm_udev import QualcommUSBDevice
from farm.errors import BenchError, DeadlineError, FarmError, UsageError
from farm.qualcomm.identity import Mode
from farm.qualcomm.ramdump import RamDump
from farm.qualcomm.regions import MemoryRegion
from farm.qualcomm.transport import UsbLostError

PART = "usb"
_POLL_S = 0.1
_CALL_DEADLINE_S = 60.0
_LIST_DEADLINE_S = 10.0
_NEWS_S = 0.5
_BEGIN_DEADLINE_S = 60.0
_AGAIN_S = 1.0
# How long a reset takes to show on the bus, at most.
_RESET_S = 5.0
_ATTEMPTS = 4

# How far a job is: bytes done, bytes in all (0: unknown), and what a tool says meanwhile.
Progress = Callable[[int, int, str], None]

# Starts the agent anew in the environment that a command on its host prints. The answer is written
# here, for there is nobody to return to.
_BECOME = f"""
import json, os, subprocess, sys

def become(words):
    if words[0] == "farm":
        words = [os.path.expanduser("~/{LAUNCHER}"), *words[1:]]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=30,
    )
    if done.returncode:
        raise RuntimeError(" ".join(words) + ": " + done.stderr[-300:])
    os.environ.update(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    sys.__stdout__.write(json.dumps({{"result": None}}) + "\\n")
    sys.__stdout__.flush()
    os.execv(sys.executable, [sys.executable, sys.argv[0]])

methods = {{"become": become}}
"""

# Put in front of the agent's text on another host: a package out of memory.
_UNPACK = """
import base64, os, sys
_package = os.memfd_create("farm")
os.write(_package, base64.b64decode({package!r}))
sys.path.insert(0, f"/proc/self/fd/{{_package}}")
"""


@target_factory.reg_resource
@attr.s(eq=False)
class BoardUsb(Resource):  # type: ignore[misc]  # labgrid has no types
    """The board's USB device in EDL, crash mode and fastboot, by its serial number or USB path.

    ``serial`` or ``path`` (as the kernel writes it: 1-2.3) tells the board from others, or both
    where two boards have the same serial number; ``host`` is where the cable ends, as ssh takes
    it, empty for this one. A board's serial number is the same in all modes, or the path has to be
    given.
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


class DeviceLostError(BenchError):
    """The board's device vanished in the middle of a step."""


class AgentLostError(BenchError):
    """The agent ended without an answer; what it was told may have been done, or not."""


def _raised(error: dict[str, Any]) -> FarmError:
    if error["kind"] == UsageError.__name__:
        return UsageError(error["message"], error["next_step"])
    kind = DeviceLostError if error["kind"] == UsbLostError.__name__ else BenchError
    return kind(error["message"], part=error["part"], next_step=error["next_step"])


def _package() -> str:
    """The modules that the agent needs, zipped, base64."""
    root = Path(farm.errors.__file__).parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("farm/__init__.py", "")
        for file in [root / "errors.py", *sorted((root / "qualcomm").glob("*.py"))]:
            archive.write(file, f"farm/{file.relative_to(root)}")
    return base64.b64encode(packed.getvalue()).decode()


def _unpacked(piece: list[Any]) -> bytes:
    """The bytes of a piece that an agent has handed out; raises BenchError."""
    kind, size = piece[0], piece[1]
    if kind == "zeros":
        return bytes(size)
    data = base64.b64decode(piece[2])
    if kind == "zlib":
        # No more than was promised, whatever is in it.
        data = zlib.decompressobj().decompress(data, size + 1)
    elif kind != "base64":
        raise BenchError(f"the agent handed out a piece of the kind {kind!r}", part=PART)
    if len(data) != size:
        raise BenchError(f"the agent handed out {len(data)} bytes for {size}", part=PART)
    return data


class _RemoteMemory:
    """Crash mode on another host, as a dump reads it."""

    def __init__(self, usb: UsbBoot) -> None:
        self._usb = usb

    def read(self, address: int, length: int) -> bytes:
        return base64.b64decode(self._usb.call("crash_bytes", address, length))

    def read_into(
        self, address: int, length: int, sink: Callable[[memoryview], object], *, chunk_bytes: int
    ) -> None:
        self._usb.job(
            "crash_read",
            *(address, length, ""),
            deadline_s=_CALL_DEADLINE_S,
            sink=lambda data: sink(memoryview(data)),
        )


@target_factory.reg_driver
@attr.s(eq=False)
class UsbBoot(Driver):  # type: ignore[misc]  # labgrid has no types
    """Talks to the board's boot programs through an agent on the cable's host."""

    # Static; found by udev here; or exported, by the class that every client of labgrid's knows.
    bindings = {  # noqa: RUF012  # labgrid's way
        "usb": {BoardUsb, QualcommUSBDevice, RemoteAndroidUSBFastboot}
    }

    # A command that prints NAME=VALUE lines which the agent needs in its environment; it is run
    # where the agent is, and `{board}` in it is the board's name.
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
            process, agent.agent = agent.agent, None
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                # What was not sent yet cannot be flushed any more.
                with contextlib.suppress(OSError):
                    stream.close()

    @property
    def _place(self) -> tuple[str, str]:
        exported = isinstance(self.usb, RemoteAndroidUSBFastboot)
        serial = str((self.usb.extra.get("serial") if exported else self.usb.serial) or "")
        path = str((self.usb.extra.get("path") if exported else self.usb.path) or "")
        if serial and isinstance(self.usb, QualcommUSBDevice):
            # Where udev has found it, which may not be where it comes back.
            path = ""
        if not serial and not path:
            raise UsageError(
                f"target {self.target.name}: its USB has neither serial nor path",
                "Give the board's serial number, or the USB path that `farm doctor` shows.",
            )
        return serial, path

    @property
    def _board(self) -> str:
        if self.target.env is None:
            return ""
        config = self.target.env.config
        return str(config.get_target_option(self.target.name, "board", default=""))

    @property
    def host(self) -> str:
        """Where the cable ends; empty for this host."""
        return str(self.usb.host or "")

    def _call(
        self,
        name: str,
        *arguments: Any,
        deadline_s: float = _CALL_DEADLINE_S,
        attempts: int = _ATTEMPTS,
    ) -> Any:
        """Call the agent; one that does not answer in time is killed.

        One that dies without an answer, as when the device goes while it is opened, is replaced,
        ``attempts`` in all; the deadline is for all of them. What must not be done twice has one.
        """
        end = time.monotonic() + deadline_s
        while True:
            attempts -= 1
            try:
                return self._call_once(name, arguments, max(0.1, end - time.monotonic()))
            except AgentLostError:
                if attempts <= 0 or time.monotonic() >= end:
                    raise

    def _call_once(self, name: str, arguments: tuple[Any, ...], deadline_s: float) -> Any:
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
            if isinstance(error, json.JSONDecodeError | OSError):
                raise AgentLostError(
                    f"{self.describe()}: the agent ended during {name.replace('_', ' ')}",
                    part=PART,
                    next_step="Is the host of the USB cable there?" if self.host else "",
                ) from error
            if isinstance(error, AgentException | AgentError):
                raise BenchError(
                    f"{self.describe()}: the agent failed: {error}",
                    part=PART,
                    next_step="The host of the USB cable needs python3 and pyusb.",
                ) from error
            raise error
        if "error" in answer:
            raise _raised(answer["error"])
        return answer["answer"]

    def job(
        self,
        name: str,
        *arguments: Any,
        deadline_s: float,
        progress: Progress | None = None,
        sink: Callable[[bytes], object] | None = None,
        again: bool = True,
    ) -> Any:
        """Call a job of the agent's on the board's device; ``sink`` gets what it hands out.

        The deadline is for each step that it makes. With ``again`` an agent that dies is replaced,
        as long as ``sink`` has got nothing.
        """
        return self._job(
            name,
            *(*self._place, *arguments),
            deadline_s=deadline_s,
            progress=progress,
            sink=sink,
            again=again,
        )

    def _job(
        self,
        name: str,
        *arguments: Any,
        deadline_s: float,
        progress: Progress | None,
        sink: Callable[[bytes], object] | None,
        again: bool,
    ) -> Any:
        attempts = _ATTEMPTS if again else 1
        while True:
            attempts -= 1
            took = False

            def take(data: bytes) -> None:
                nonlocal took
                took = True
                if sink is not None:
                    sink(data)

            try:
                self._call("begin", name, *arguments, attempts=1)
                return self._follow(name, deadline_s, progress, take)
            except AgentLostError:
                if attempts <= 0 or took:
                    raise

    def _follow(
        self,
        name: str,
        deadline_s: float,
        progress: Progress | None,
        take: Callable[[bytes], object],
    ) -> Any:
        last: tuple[Any, ...] = ()
        end = time.monotonic() + deadline_s
        try:
            while True:
                news = self._call("poll", _NEWS_S, deadline_s=_LIST_DEADLINE_S, attempts=1)
                for piece in news["pieces"]:
                    take(_unpacked(piece))
                state = (news["done"], news["words"], len(news["pieces"]))
                if state != last or news["pieces"]:
                    end = time.monotonic() + deadline_s
                last = state
                if progress is not None:
                    progress(news["done"], news["total"], news["words"])
                if news["ended"] is not None:
                    if "error" in news["ended"]:
                        raise _raised(news["ended"]["error"])
                    return news["ended"]["answer"]
                if time.monotonic() > end:
                    raise DeadlineError(
                        f"{self.describe()}: {name.replace('_', ' ')}, {news['done']} bytes "
                        "into it, went on for nothing, which",
                        part=PART,
                        deadline_s=deadline_s,
                    )
        except FarmError:
            raise
        except BaseException:
            # Interrupted: the agent must not go on by itself.
            self._drop_agent()
            raise

    def _start_agent(self) -> None:
        wanted: dict[str, str] = {}
        words = hooks.filled(self.environment, {"board": self._board})
        if words and not self.host:
            said = hooks.run_command(words)
            wanted = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        before = {name: os.environ.get(name) for name in wanted}
        # The wrapper hands on the environment as it is just now.
        os.environ.update(wanted)
        if self.host:
            checked(self.host)
        try:
            self._agent = self._begun()
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchError(
                f"{self.describe()}: the agent does not start: {error}",
                part=PART,
                next_step=f"`ssh {self.host} python3 --version` and rsync must work without a "
                "password."
                if self.host
                else "",
            ) from error
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        source = Path(__file__).with_name("usb_agent.py").read_text()
        if self.host:
            source = _UNPACK.format(package=_package()) + source
        try:
            if words and self.host:
                self._agent.call("load", "environment", _BECOME)
                self._agent.call("environment.become", words)
            self._agent.call("load", "usb_agent", source)
        except (AgentException, AgentError, json.JSONDecodeError, OSError) as error:
            self._drop_agent()
            raise BenchError(
                f"{self.describe()}: the agent does not start: {error}",
                part=PART,
                next_step="The host of the USB cable needs python3 (3.11 or later) and pyusb.",
            ) from error
        self._proxy = ModuleProxy(self._agent, "usb_agent")

    def _begun(self) -> Any:
        """A new agent; one on a host that says nothing any more is not waited for."""
        if not self.host:
            return AgentWrapper(None)
        begun: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                begun.put((AgentWrapper(self.host), None))
            except Exception as error:  # what ssh or rsync say
                begun.put((None, error))

        threading.Thread(target=run, name="usb-agent", daemon=True).start()
        try:
            agent, error = begun.get(timeout=_BEGIN_DEADLINE_S)
        except queue.Empty:
            raise DeadlineError(
                f"{self.describe()}: the agent's start", part=PART, deadline_s=_BEGIN_DEADLINE_S
            ) from None
        if error is not None:
            raise error
        return agent

    def wait_for_host(self, deadline_s: float) -> None:
        """Wait until an agent runs on the cable's host again; raises BenchError, the last one."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                self.find()
                return
            except BenchError:
                if time.monotonic() > end:
                    raise
                threading.Event().wait(_AGAIN_S)

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

    def find(self, deadline_s: float = _LIST_DEADLINE_S) -> Found | None:
        """The board's device, None if it shows none; raises BenchError when several match."""
        serial, path = self._place
        matching = [
            one
            for one in self._call("devices", deadline_s=deadline_s)
            if (not serial or one["serial"].lower() == serial.lower())
            and (not path or one["path"] == path)
        ]
        if len(matching) > 1:
            shown = ", ".join(f"{one['mode']} at {one['path']}" for one in matching)
            raise BenchError(
                f"{self.describe()}: {len(matching)} devices match: {shown}",
                part=PART,
                next_step="Give BoardUsb the USB path too.",
            )
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

    def to_file(
        self,
        target: Path,
        deadline_s: float,
        name: str,
        *arguments: Any,
        progress: Progress | None = None,
    ) -> ReadBack:
        """Call a job that reads memory into a file of this host; raises BenchError."""
        if not self.host:
            answer = self.job(
                name, *arguments, str(target), deadline_s=deadline_s, progress=progress
            )
        else:
            with target.open("wb") as file:
                answer = self.job(
                    name,
                    *(*arguments, ""),
                    deadline_s=deadline_s,
                    progress=progress,
                    sink=file.write,
                )
        return ReadBack(
            answer["bytes"], answer["received_bytes"], answer["seconds"], answer["sha256"]
        )

    def dump(self, folder: Path, deadline_s: float, progress: Progress | None) -> dict[str, Any]:
        """Dump every region of crash mode into ``folder`` of this host, or go on with it."""
        if not self.host:
            said = self.job("crash_dump", str(folder), deadline_s=deadline_s, progress=progress)
            return dict(said)
        before = time.monotonic()

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total, "")

        regions = tuple(MemoryRegion(**one) for one in self.call("crash_regions"))
        files = RamDump(folder, tell).read(_RemoteMemory(self), regions)
        return {
            "files": [asdict(one) for one in files],
            "received_bytes": sum(one.length_bytes for one in files),
            "seconds": round(time.monotonic() - before, 3),
        }

    def call(
        self,
        name: str,
        *arguments: Any,
        deadline_s: float = _CALL_DEADLINE_S,
        attempts: int = _ATTEMPTS,
    ) -> Any:
        """Call a function of the agent's on the board's device."""
        return self._call(name, *self._place, *arguments, deadline_s=deadline_s, attempts=attempts)

    def reset(self, name: str, *arguments: Any, deadline_s: float) -> None:
        """Call a function that resets the board, once; raises BenchError.

        When the agent ends without an answer, the bus tells whether the board was reset: the
        device is gone then, or has another address. Only one that is still there is told again.
        """
        before = self.find()
        try:
            self.call(name, *arguments, deadline_s=deadline_s, attempts=1)
            return
        except AgentLostError:
            end = time.monotonic() + _RESET_S
            while before is not None and time.monotonic() < end:
                now = self.find()
                if now is None or (now.mode, now.address) != (before.mode, before.address):
                    return
                threading.Event().wait(_POLL_S)
        self.call(name, *arguments, deadline_s=deadline_s, attempts=1)

    def placed(self, file: Path) -> str:
        """Where a file of this host lies on the cable's host, copied there if it has to be."""
        if not self.host:
            return str(file)
        try:
            managed = ManagedFile(file, NetworkResource(None, None, host=self.host))
            managed.sync_to_resource()
        except (ExecutionError, OSError, subprocess.SubprocessError) as error:
            raise BenchError(
                f"{file} cannot be copied to {self.host}: {error}",
                part="disk",
                next_step="It goes below /var/cache/labgrid there, which your user must be "
                "allowed to write.",
            ) from error
        return str(managed.get_remote_path())

    def tool(
        self,
        command: list[str],
        deadline_s: float,
        what: str,
        *,
        good: Callable[[str], bool],
        given: dict[str, str] | None = None,
        taken: tuple[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Run a program on the cable's host; raises BenchError with its last words.

        ``{folder}`` in ``command`` is a folder there that holds the files ``given`` (name: text);
        ``taken`` is a file of it and the path here that it goes to. ``good`` looks at what the
        program said: qdl ends with 0 after some failures.
        """
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(taken[1].open("wb")) if taken else None
            answer = self._job(
                "run_tool",
                *(command, deadline_s, given or {}, taken[0] if taken else ""),
                deadline_s=deadline_s + _LIST_DEADLINE_S,
                progress=progress,
                sink=file.write if file is not None else None,
                again=False,
            )
        text = str(answer["output"])
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        # What fastboot says last is only that it failed.
        why = [line for line in lines if line.startswith("FAILED")]
        last = [*lines, *why][-1] if lines else "it said nothing"
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
