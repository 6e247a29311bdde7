"""The bus that all boards of one state folder are plugged into, and each board's own view of it.

Two umockdev folders show a board's device: one that all boards share, and one that shows that board
alone, for programs that take the first device they find. Their paths are short because a Unix
socket's address is. Ports are given out once per board name, addresses never twice in a row.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from ctypes.util import find_library
from pathlib import Path

from farm.errors import UsageError
from farm.virtual.layout import state_root
from farm.virtual.usb_device import Device
from farm.virtual.usbfs import Plugged, Port, Tree

PRELOAD = "libumockdev-preload.so.0"
BUS = 1
# As many as the kernel gives a hub: USB_MAXCHILDREN, include/uapi/linux/usb/ch11.h.
_PORTS = 31
_ADDRESSES = 127


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def bus_root() -> Path:
    """The folder of the bus that belongs to this state folder."""
    return Path("/tmp") / f"farm-usb-{os.getuid()}-{_digest(str(state_root()), 8)}"


def shared_folder() -> Path:
    """The umockdev folder that shows every board."""
    return bus_root() / "all"


def own_folder(name: str) -> Path:
    """The umockdev folder that shows the board called ``name`` alone."""
    return bus_root() / f"b-{_digest(name, 8)}"


def usb_serial(name: str) -> str:
    """The serial number of the board called ``name``: eight hex digits, always the same."""
    return _digest(f"serial of {name}", 8).upper()


def environment(name: str | None) -> dict[str, str]:
    """What a program's environment needs to see the bus, or the one board called ``name``.

    Raises UsageError when libumockdev-preload is not installed.
    """
    if find_library("umockdev-preload") is None:
        raise UsageError(
            "libumockdev-preload is not installed",
            "Install it, on Debian with `apt-get install umockdev`.",
        )
    folder = shared_folder() if name is None else own_folder(name)
    Tree(folder).prepare()
    return {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": str(folder)}


def without_bus(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which programs see the host's own devices."""
    clean = dict(environment)
    clean.pop("UMOCKDEV_DIR", None)
    if clean.get("LD_PRELOAD") == PRELOAD:
        del clean["LD_PRELOAD"]
    return clean


class BusPort:
    """A board's place on the bus."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._trees = [Tree(own_folder(name)), Tree(shared_folder())]
        with self._turn():
            for tree in self._trees:
                tree.prepare()
            self.port = self._take_port()
            self._sweep()

    @property
    def path(self) -> str:
        """Bus and port, as the kernel writes it."""
        return f"{BUS}-{self.port}"

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        descriptor = self._locked()
        try:
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _locked() -> int:
        """The held lock; the last board to leave takes the folder away, and the lock with it."""
        while True:
            bus_root().mkdir(mode=0o700, exist_ok=True)
            file = bus_root() / "turn"
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if os.fstat(descriptor).st_ino == file.stat().st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def _take_port(self) -> int:
        held: dict[int, str] = {}
        for file in bus_root().glob("port-*"):
            held[int(file.name.removeprefix("port-"))] = file.read_text()
        for number, owner in held.items():
            if owner == self._name:
                return number
        for number in range(1, _PORTS + 1):
            if number not in held:
                (bus_root() / f"port-{number}").write_text(self._name)
                return number
        raise UsageError(
            f"all {_PORTS} ports of the bus are taken by {', '.join(sorted(held.values()))}",
            "Take a board down: `farm virtual down --name NAME`.",
        )

    def _sweep(self) -> None:
        """Take away what an earlier life of this board, killed, has left plugged in."""
        for tree in self._trees:
            tree.sweep(BUS, self.port)

    def _next_address(self) -> int:
        counter = bus_root() / "address"
        with self._turn():
            last = int(counter.read_text()) if counter.exists() else 1
            taken = {int(node.name) for node in shared_folder().glob("dev/bus/usb/001/*")}
            for step in range(1, _ADDRESSES):
                address = (last - 1 + step) % (_ADDRESSES - 1) + 2
                if address not in taken:
                    break
            counter.write_text(str(address))
        return address

    def plug(self, device: Device) -> Plugged:
        """Show ``device`` at this port, under a fresh address."""
        return Plugged(self._trees, Port(BUS, self.port, self._next_address()), device)

    def give_back(self) -> None:
        """Leave the bus."""
        with self._turn():
            (bus_root() / f"port-{self.port}").unlink(missing_ok=True)
            shutil.rmtree(own_folder(self._name), ignore_errors=True)
            if not any(bus_root().glob("port-*")):
                shutil.rmtree(bus_root(), ignore_errors=True)
