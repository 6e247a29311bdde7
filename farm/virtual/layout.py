"""Where a board keeps its state: one folder per board name.

options.json   what the board was started with
state.json     what it last was, for readers when its daemon is gone
control.sock   the daemon's control socket, JSON lines
events.jsonl   the event log
lock           held (flock) by the daemon for as long as it lives
daemon.log, qemu.log, board.dtb, serial.in, serial.out
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BenchError, UsageError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHARED_MEMORY = Path("/dev/shm")
_ROOM_TO_LEAVE_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def check_name(name: str) -> str:
    """The board's ``name``, which becomes a folder's; raises UsageError for what cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a board: 1 to 48 letters, digits, '.', '_' or '-'"
        )
    return name


def state_root() -> Path:
    """The folder of all boards' state."""
    if chosen := os.environ.get("PANIC_FARM_STATE"):
        return Path(chosen).absolute()
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "panic-farm"
    return Path(f"/tmp/panic-farm-{os.getuid()}")


def host_boot_id() -> str:
    """The identity of this boot of the host."""
    return _BOOT_ID.read_text().strip()


@dataclass(frozen=True)
class BoardDir:
    """The state folder of one board."""

    root: Path

    @classmethod
    def of(cls, name: str) -> BoardDir:
        """The folder of the board called ``name``, which may not exist; raises UsageError."""
        return cls(state_root() / check_name(name))

    @property
    def name(self) -> str:
        """The board's name."""
        return self.root.name

    @property
    def options(self) -> Path:
        """What the board was started with."""
        return self.root / "options.json"

    @property
    def state(self) -> Path:
        """What the board last was."""
        return self.root / "state.json"

    @property
    def events(self) -> Path:
        """The event log, JSON lines."""
        return self.root / "events.jsonl"

    @property
    def daemon_log(self) -> Path:
        """What the daemon wrote to stdout and stderr."""
        return self.root / "daemon.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU wrote to stderr."""
        return self.root / "qemu.log"

    @property
    def dtb(self) -> Path:
        """The device tree of the present boot."""
        return self.root / "board.dtb"

    @property
    def serial_pipe(self) -> Path:
        """The stem of the two FIFOs, .in and .out, between QEMU's UART and the daemon."""
        return self.root / "serial"

    def create(self) -> None:
        """Make the folder, readable by its owner only; raises BenchError if another owns it."""
        for folder in (self.root.parent, self.root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                raise BenchError(
                    f"{folder} belongs to another user",
                    part="board",
                    next_step="Set PANIC_FARM_STATE to a folder of your own.",
                )

    def dram_file(self, size_bytes: int) -> Path:
        """The file that is the board's DRAM: in shared memory if there is room."""
        try:
            room = os.statvfs(_SHARED_MEMORY)
            in_memory = room.f_bavail * room.f_frsize >= size_bytes + _ROOM_TO_LEAVE_BYTES
        except OSError:
            in_memory = False
        return self.dram_candidates()[0 if in_memory else 1]

    def dram_candidates(self) -> tuple[Path, Path]:
        """Both places where the DRAM file of this board can be."""
        tag = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return _SHARED_MEMORY / f"panic-farm-{self.name}-{tag}.dram", self.root / "dram"

    def new_dram(self, size_bytes: int) -> Path:
        """A DRAM that has lost its content; the file is the owner's only."""
        self.drop_dram()
        file = self.dram_file(size_bytes)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        return file

    def drop_dram(self) -> None:
        """Lose the DRAM's content."""
        for file in self.dram_candidates():
            file.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove everything but the logs: the board is down."""
        self.drop_dram()
        for file in (self.options, self.state, self.dtb, self.root / "control.sock"):
            file.unlink(missing_ok=True)
        for suffix in (".in", ".out"):
            self.serial_pipe.with_suffix(suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only command that brings this board up or down; who is, has deadlines."""
        descriptor = os.open(self.root / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def take_lock(self) -> int | None:
        """The descriptor of the held lock, or None if a daemon holds it."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def daemon_alive(self) -> bool:
        """Whether a daemon holds this board, whatever the state file says."""
        if not (self.root / "lock").exists():
            return False
        descriptor = self.take_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def control_address(self, directory: int) -> str:
        """The control socket's address by way of an open folder: any path length will do."""
        return f"/proc/self/fd/{directory}/control.sock"

    def connect(self, deadline_s: float) -> socket.socket:
        """A connection to the daemon's control socket; raises OSError when nobody listens."""
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(deadline_s)
            try:
                connection.connect(self.control_address(directory))
            except OSError:
                connection.close()
                raise
        finally:
            os.close(directory)
        return connection

    def listen(self) -> socket.socket:
        """The listening control socket; the caller holds the lock."""
        (self.root / "control.sock").unlink(missing_ok=True)
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(self.control_address(directory))
        finally:
            os.close(directory)
        listener.listen()
        return listener


def board_dirs() -> list[BoardDir]:
    """Every board that is up or lost, by name."""
    root = state_root()
    if not root.is_dir():
        return []
    found = (folder for folder in root.iterdir() if (folder / "options.json").is_file())
    return [BoardDir(folder) for folder in sorted(found)]
