"""``farm exporter``: one command that brings a host of boards up, and takes it down again.

It starts the virtual boards that the configuration names, hands all the rest to labgrid's exporter,
and keeps that running: labgrid's ends when the coordinator goes. Nothing here listens; with
``isolated`` clients reach this host's loopback ports through ssh.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
import yaml
from labgrid.exceptions import NoConfigFoundError
from labgrid.remote.config import ResourceConfig

from farm.bench import hooks
from farm.bench.hosts import LAUNCHER, is_host
from farm.errors import BenchError, FarmError, UsageError
from farm.signals import ENDING, ending_with_parent, handled

__all__ = ["VIRTUAL_BOARD", "Exporter", "HostConfig", "VirtualBoard", "expanded", "read_config"]

# The class, in the configuration, of a board that is started here; its group is the board's name.
VIRTUAL_BOARD = "VirtualBoard"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_OPTION = re.compile(r"[a-z][a-z_]{0,30}")
_READY = "Exporter ready"
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 10.0
# One that has run so long was well: the next pause is a short one again.
_WELL_S = 30.0
_LOOK_S = 0.5
_END_DEADLINE_S = 15.0
_SPEED = 115200
# What decides where boards keep their state and where kernels lie.
_HANDED_ON = ("PANIC_FARM_STATE", "PANIC_FARM_CACHE", "XDG_RUNTIME_DIR")


@dataclass(frozen=True)
class VirtualBoard:
    """A virtual board of this host; ``options`` are those of `farm virtual up`."""

    name: str
    options: Mapping[str, str | int] = field(default_factory=dict)

    def command(self, verb: str, *more: str) -> list[str]:
        """`farm virtual` for this board."""
        return ["farm", "virtual", verb, "--name", self.name, *more]

    @property
    def up(self) -> list[str]:
        """The command that puts it on the bench."""
        words = [
            word
            for name, value in self.options.items()
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        return self.command("up", "--json", *words)


@dataclass(frozen=True)
class HostConfig:
    """What a host exports: labgrid's groups of resources, and the virtual boards among them."""

    groups: Mapping[str, Mapping[str, Any]]
    virtual: tuple[VirtualBoard, ...]


def read_config(path: Path, *, name: str, hostname: str, isolated: bool) -> HostConfig:
    """Read labgrid's exporter configuration; UsageError names what is wrong in it.

    It is a Jinja template, as labgrid has it.
    """
    variables = {"env": os.environ, "isolated": isolated, "hostname": hostname, "name": name}
    try:
        # It prints all that it reads, passwords of power switches too.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            data = ResourceConfig(str(path.resolve()), variables).data
    except NoConfigFoundError as error:
        raise UsageError(f"there is no file {path}", "See docs/hosts.md.") from error
    except jinja2.TemplateError as error:
        raise UsageError(f"{path}: line {getattr(error, 'lineno', '?')}: {error}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(one, dict) for one in data.values()):
        raise UsageError(
            f"{path} names no groups of resources",
            "It is labgrid's exporter configuration: GROUP: {RESOURCE: {PARAMETER: VALUE}}.",
        )
    groups, boards = {}, []
    for group, resources in data.items():
        rest = {key: one for key, one in resources.items() if key != VIRTUAL_BOARD}
        groups[str(group)] = rest
        if VIRTUAL_BOARD in resources:
            boards.append(_virtual_board(path, str(group), resources[VIRTUAL_BOARD] or {}))
    return HostConfig(groups, tuple(boards))


def _virtual_board(path: Path, group: str, given: Any) -> VirtualBoard:
    where = f"{path}: {group}.{VIRTUAL_BOARD}"
    if not _NAME.fullmatch(group):
        raise UsageError(f"{where}: {group!r} is no name for a board", "The group names the board.")
    if not isinstance(given, dict):
        raise UsageError(
            f"{where}: it is no mapping", "{} will do; options: farm virtual up --help"
        )
    for name, value in given.items():
        scalar = isinstance(value, str | int) and not isinstance(value, bool)
        if not _OPTION.fullmatch(str(name)) or name == "name" or not scalar:
            raise UsageError(
                f"{where}: {name}: {value!r} is no option of a virtual board",
                "Those of `farm virtual up`, with _ for -: memory_mib: 256.",
            )
    return VirtualBoard(group, given)


def expanded(config: HostConfig, status: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """labgrid's configuration, each virtual board as what its `farm virtual status` says."""
    groups: dict[str, Any] = {name: dict(one) for name, one in config.groups.items()}
    for board in config.virtual:
        now = status[board.name]
        groups[board.name] |= {
            "NetworkSerialPort": {
                "host": "localhost",
                "port": now["serial_port"],
                "speed": _SPEED,
                "protocol": "rfc2217",
            },
            "NetworkPowerPort": {
                "model": "simplerest",
                "host": now["power_host"],
                "index": str(now["power_index"]),
            },
            "BoardUsb": {"serial": now["usb_serial"]},
        }
    return groups


class _StopAsked(Exception):
    """Somebody wants this to end."""


class Exporter:
    """A host of boards, up until a signal comes; use `run` once.

    ``say`` gets a line for each thing that happens. ``coordinator`` is HOST:PORT, reached through
    LG_PROXY if that is set; ``hostname`` is what other hosts give to ssh.
    """

    def __init__(
        self,
        config: HostConfig,
        *,
        name: str,
        hostname: str,
        coordinator: str,
        isolated: bool,
        say: Callable[[str], None],
    ) -> None:
        if not is_host(hostname):
            raise UsageError(f"--hostname {hostname!r} is no name for a host")
        self._config = config
        self._name = name
        self._hostname = hostname
        self._coordinator = coordinator
        self._isolated = isolated
        self._say = say
        self._status: dict[str, dict[str, Any]] = {}
        self._started: list[VirtualBoard] = []
        self._child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Bring the host up and serve until SIGINT, SIGTERM or SIGHUP; then take it down.

        Raises BenchError when a board does not start.
        """
        with handled(ENDING, _stop), self._down_at_the_end():
            self._bring_up()
            _write_launcher()
            with tempfile.TemporaryDirectory(prefix="farm-exporter-") as folder:
                file = Path(folder) / "exporter.yaml"
                # One line, and raw: the file that it comes from was a template, this is none.
                text = json.dumps(expanded(self._config, self._status))
                file.write_text(f"{{% raw %}}{text}{{% endraw %}}\n")
                self._serve(file)

    # -- boards

    def _bring_up(self) -> None:
        for board in self._config.virtual:
            code, _ = hooks.state(board.command("status"))
            if code != hooks.UP:
                self._started.append(board)
            self._status[board.name] = self._up(board)
            how = "was up already and stays so" if code == hooks.UP else "is up"
            self._say(f"virtual board {board.name} {how}")

    def _up(self, board: VirtualBoard) -> dict[str, Any]:
        known = self._status.get(board.name)
        words = board.up
        if known is not None:
            # What is exported says where it is.
            words += ["--serial-port", str(known["serial_port"])]
            words += ["--power-port", str(known["power_port"])]
        said = hooks.run_long(words)
        return dict(json.loads(said))

    def _revive(self) -> None:
        """Bring boards back whose process has died; one that was taken down is left alone."""
        for board in self._config.virtual:
            pid = self._status[board.name].get("pid")
            if pid is not None and Path("/proc", str(pid)).exists():
                continue
            self._status[board.name]["pid"] = None
            if pid is None:
                continue
            try:
                if hooks.state(board.command("status"))[0] == hooks.LOST:
                    self._status[board.name] = self._up(board)
                    self._say(f"virtual board {board.name} was lost: it starts afresh")
            except FarmError as error:
                self._say(f"virtual board {board.name}: {error.message}")

    @contextmanager
    def _down_at_the_end(self) -> Iterator[None]:
        try:
            yield
        except _StopAsked:
            self._say("going down")
        finally:
            with handled(ENDING, signal.SIG_IGN):
                self._end_child()
                for board in self._started:
                    try:
                        hooks.run_long(board.command("down"))
                        self._say(f"virtual board {board.name} is down")
                    except FarmError as error:
                        self._say(f"virtual board {board.name}: {error.message}")

    # -- labgrid's exporter

    def _serve(self, file: Path) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            code, words = self._run_child(file)
            if time.monotonic() - began > _WELL_S:
                pause_s = _FIRST_PAUSE_S
            self._say(
                f"labgrid's exporter ended ({code}): {words or 'it said nothing'}; "
                f"again in {pause_s:g} s"
            )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _run_child(self, file: Path) -> tuple[int, str]:
        """Run labgrid's exporter to its end; its exit code and last words."""
        command = [
            *(sys.executable, "-m", "farm.hosts.labgrid_exporter"),
            *("--coordinator", self._coordinator, "--name", self._name),
            *("--hostname", self._hostname),
            *(["--isolated"] if self._isolated else []),
            str(file),
        ]
        self._child = child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=ending_with_parent(signal.SIGTERM),
        )
        last = [""]
        readers = [
            threading.Thread(target=self._follow_output, args=(child,), daemon=True),
            threading.Thread(target=_follow_errors, args=(child, last), daemon=True),
        ]
        for one in readers:
            one.start()
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK_S)
            self._revive()
        for one in readers:
            one.join(1.0)
        return child.returncode, last[0]

    def _follow_output(self, child: subprocess.Popen[str]) -> None:
        # The rest is the whole configuration: no log wants that.
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == _READY:
                self._say(f"{self._name} exports to {self._coordinator}, as {self._hostname}")

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _follow_errors(child: subprocess.Popen[str], last: list[str]) -> None:
    assert child.stderr is not None
    for line in child.stderr:
        if line.strip():
            last[0] = line.strip()[-300:]
        if not line.startswith(("INFO:", "DEBUG:")):
            print(line, end="", file=sys.stderr, flush=True)


def _write_launcher() -> None:
    """Leave the farm that runs here where commands that come over ssh find it."""
    path = Path.home() / LAUNCHER
    lines = ["#!/bin/sh", "# By `farm exporter`: the farm for commands that come over ssh."]
    for name in _HANDED_ON:
        if value := os.environ.get(name):
            lines.append(f"export {name}={shlex.quote(value)}")
    lines.append(f'exec {shlex.join(hooks.command_line(["farm"]))} "$@"')
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.chmod(0o700)
        new.replace(path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}", part="disk") from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise _StopAsked


def default_hostname() -> str:
    """What other hosts most likely call this one."""
    return socket.getfqdn()
