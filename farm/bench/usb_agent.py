"""What runs where the board's USB cable ends: loaded into a labgrid agent, here or on an exporter.

Every function takes and returns JSON values; an error of the farm comes back as
``{"error": ...}``, for an agent passes on an exception's text only. What may take long is a job:
``begin`` starts it and ``poll`` tells how far it is, so that a host can show that and stop waiting
at any time. An agent that loses its host ends at once, and the programs that it runs with it.

Bulk data goes to a file here, or, when no file is named, comes out of ``poll`` in pieces
``[encoding, size, text]``: ``zeros`` without a text, ``base64``, or ``zlib`` in base64. Zero pages
are never sent; the rest is compressed as long as pieces wait for the host, for then the link is
what is slow.
"""

import base64
import ctypes
import errno
import fcntl
import hashlib
import os
import queue
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from usb.core import USBError

from farm.errors import BenchError, DeadlineError, FarmError
from farm.qualcomm import usb
from farm.qualcomm.firehose import Firehose
from farm.qualcomm.gpt import find_partition
from farm.qualcomm.identity import Mode
from farm.qualcomm.ramdump import RamDump, read_range, read_table
from farm.qualcomm.sahara import Execute, Sahara
from farm.qualcomm.transport import RefusedError, ViolationError

_KILL_DEADLINE_S = 5.0
_AGAIN_DEADLINE_S = 10.0
_TOOL_LOOK_S = 0.2
_RUNNING_S = 1.0
_TOOL_FOLDER = "farm-usb-tool-"
_WORDS = 200
# So much may wait for a host that is slower than the board.
_WAITING_PIECES = 8
_ZEROS = bytes(1 << 12)
# A shorter run of zero pages costs more as a piece of its own than it saves.
_RUN_BYTES = 1 << 16
# What does not shrink to this is not tried again for so many pieces.
_WORTH = 0.9
_NOT_WORTH_PIECES = 16
# A host asks twice a second; one that has not for so long is lost, even if ssh has not noticed.
_FORGOTTEN_S = 30.0
# The farm's modules were sent along: whoever sent them is on another host.
_ELSEWHERE = "_package" in globals()
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class _Session:
    """The device that is held open between calls: a programmer keeps its state."""

    def __init__(self):
        self.transport: Any = None
        self.forget()

    def forget(self):
        self.transport = None
        self.sahara: Any = None
        self.regions: tuple[Any, ...] = ()
        self.firehose: Any = None

    def close(self):
        if self.transport is not None:
            self.transport.close()
        self.forget()


_session = _Session()


def _as_error(error):
    return {
        "error": {
            "kind": type(error).__name__,
            "message": error.message,
            "next_step": error.next_step,
            "part": getattr(error, "part", "usb"),
        }
    }


def _host_error(error):
    if isinstance(error, USBError):
        return BenchError(f"the USB device fails: {error}", part="usb")
    what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return BenchError(
        f"{error.filename or 'a file'} cannot be read or written: {what}",
        part="disk",
        next_step="Make room on the host of the USB cable, or check the path.",
    )


def _answering(function):
    def call(*args, **kwargs):
        try:
            return {"answer": function(*args, **kwargs)}
        except FarmError as error:
            if isinstance(error, BenchError):
                _session.close()
            return _as_error(error)
        except OSError as error:
            _session.close()
            return _as_error(_host_error(error))

    return call


def _runs(raw):
    """``(start, end, whether all are zeros)`` of bytes, for the longer runs of zero pages."""
    page = len(_ZEROS)
    start = at = 0
    while at < len(raw):
        zeros = at
        while zeros < len(raw) and raw[zeros : zeros + page] == _ZEROS[: len(raw) - zeros]:
            zeros += page
        zeros = min(zeros, len(raw))
        if zeros - at >= min(_RUN_BYTES, len(raw)):
            if start < at:
                yield start, at, False
            yield at, zeros, True
            start = zeros
        at = max(zeros, at + page)
    if start < len(raw):
        yield start, len(raw), False


class _Job:
    """A long call in a thread: what it has moved, what it hands out, and its end."""

    def __init__(self, function, arguments):
        self.done = self.total = 0
        self.words = ""
        self.ended: dict[str, Any] | None = None
        self._pieces: queue.Queue[list[Any]] = queue.Queue(_WAITING_PIECES)
        self._news = threading.Event()
        self._plain_for = 0
        self._asked = time.monotonic()
        self._over = threading.Event()

        def run():
            try:
                self.ended = _answering(function)(self, *arguments)
            except Exception as error:  # a host must not wait for ever
                self.ended = _as_error(BenchError(f"the agent failed: {error!r}", part="usb"))
            self._news.set()

        threading.Thread(target=run, name="job", daemon=True).start()
        if _ELSEWHERE:
            threading.Thread(target=self._mind_the_host, name="host", daemon=True).start()

    def _mind_the_host(self):
        """End the agent when its host is gone: the board's device is wanted by the next one."""
        while not self._over.wait(1.0):
            if time.monotonic() - self._asked > _FORGOTTEN_S:
                os._exit(1)

    def moved(self, done, total, words=""):
        """Say how far it is."""
        self.done, self.total, self.words = done, total, words

    def hand_out(self, data):
        """Give a piece to the host; waits while it has enough of them."""
        raw = bytes(data)
        for start, end, zero in _runs(raw):
            piece = ["zeros", end - start] if zero else self._packed(raw[start:end])
            self._pieces.put(piece)
            self._news.set()

    def _packed(self, raw):
        if self._plain_for:
            self._plain_for -= 1
        elif not self._pieces.empty():
            small = zlib.compress(raw, 1)
            if len(small) < _WORTH * len(raw):
                return ["zlib", len(raw), base64.b64encode(small).decode()]
            self._plain_for = _NOT_WORTH_PIECES
        return ["base64", len(raw), base64.b64encode(raw).decode()]

    def poll(self, wait_s):
        """What is new, after at most ``wait_s``."""
        self._asked = time.monotonic()
        self._news.wait(wait_s)
        self._news.clear()
        ended = self.ended
        pieces = []
        while not self._pieces.empty():
            pieces.append(self._pieces.get())
        if ended is not None:
            # Whoever asks again finds the end again.
            self._news.set()
            self._over.set()
        return {
            "done": self.done,
            "total": self.total,
            "words": self.words,
            "pieces": pieces,
            "ended": ended,
        }


_job: Any = None


def begin(name, *arguments):
    """Start a job."""
    global _job
    if _job is not None and _job.ended is None:
        raise BenchError(f"{name}: another call is still running", part="usb")
    _job = _Job(_JOBS[name], arguments)


def poll(wait_s):
    """How far the job is."""
    if _job is None:
        raise BenchError("no call is running", part="usb")
    return _job.poll(wait_s)


class _Target:
    """Where memory goes: a file here, or pieces for the host; counted and summed on the way."""

    def __init__(self, job, path, total):
        self._job = job
        self._file: Any = Path(path).open("wb") if path else None  # noqa: SIM115  # see __exit__
        self._total = total
        self._sum = hashlib.sha256()
        self.size = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file is not None:
            self._file.close()

    def add(self, data):
        self._sum.update(data)
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
        else:
            self._job.hand_out(data)
        self._job.moved(self.size, self._total)

    def measured(self, received, before):
        return {
            "bytes": self.size,
            "received_bytes": received,
            "seconds": round(time.monotonic() - before, 3),
            "sha256": self._sum.hexdigest(),
        }


def devices():
    """Every boot-mode device on this host's bus."""
    return [
        {
            "mode": one.identity.mode.value,
            "path": one.identity.path,
            "serial": one.identity.serial,
            "address": one.identity.address,
        }
        for one in usb.devices()
    ]


def close():
    """Let go of the device."""
    _session.close()


def _crash(serial, path):
    if _session.sahara is None:
        _session.close()
        _session.transport = usb.open_device(
            serial=serial, path=path, modes=frozenset({Mode.CRASH}), step="reading memory"
        )
        _session.sahara = Sahara(_session.transport)
        _session.sahara.connect()
        _session.regions = read_table(_session.sahara, _session.sahara.memory_debug())
    return _session.sahara


def crash_read(job, serial, path, address, length, target):
    """Read memory in crash mode into ``target``, through Sahara."""
    before = time.monotonic()
    sahara = _crash(serial, path)
    received = sahara.pipe.received_bytes
    with _Target(job, target, length) as file:
        read_range(sahara, _session.regions, address, length, file.add)
        return file.measured(sahara.pipe.received_bytes - received, before)


def crash_bytes(serial, path, address, length):
    """A little memory in crash mode, base64."""
    return base64.b64encode(_crash(serial, path).read(address, length)).decode()


def crash_regions(serial, path):
    """The region table of crash mode."""
    _crash(serial, path)
    return [
        {
            "index": one.index,
            "base": one.base,
            "length_bytes": one.length_bytes,
            "save": one.save,
            "description": one.description,
            "board_name": one.board_name,
        }
        for one in _session.regions
    ]


def crash_dump(job, serial, path, folder):
    """Dump every region into ``folder``, or go on with that."""
    before = time.monotonic()
    sahara = _crash(serial, path)
    received = sahara.pipe.received_bytes
    files = RamDump(Path(folder), job.moved).read(sahara, _session.regions)
    return {
        "files": [
            {
                "file": one.file,
                "base": one.base,
                "length_bytes": one.length_bytes,
                "board_name": one.board_name,
                "sha256": one.sha256,
            }
            for one in files
        ],
        "received_bytes": sahara.pipe.received_bytes - received,
        "seconds": round(time.monotonic() - before, 3),
    }


def crash_reset(serial, path):
    """Leave crash mode by a reset."""
    _crash(serial, path).reset()
    _session.close()


def edl_identity(serial, path):
    """Serial number and hardware id, by Sahara's command mode."""
    _session.close()
    with usb.open_device(
        serial=serial, path=path, modes=frozenset({Mode.EDL}), step="asking the boot ROM"
    ) as transport:
        sahara = Sahara(transport)
        sahara.connect()
        return {
            "serial": sahara.execute(Execute.SERIAL_NUMBER).hex(),
            "hardware_id": sahara.execute(Execute.HARDWARE_ID)[:8].hex(),
        }


def _running_programmer(transport, storage):
    """The programmer that an earlier session has left; None if the device is silent to it."""
    # The first answer may be about what was asked in Sahara's words.
    for _ in range(2):
        firehose = Firehose(transport, storage=storage, deadline_s=_RUNNING_S)
        try:
            firehose.configure()
        except (RefusedError, ViolationError, DeadlineError):
            continue
        return firehose
    return None


def _edl(serial, path, programmer, storage):
    if _session.firehose is None:
        _session.close()
        _session.transport = usb.open_device(
            serial=serial, path=path, modes=frozenset({Mode.EDL}), step="starting a programmer"
        )
        sahara = Sahara(_session.transport)
        image = Path(programmer).read_bytes()
        firehose = None
        if sahara.connect() is None:
            firehose = _running_programmer(_session.transport, storage)
        if firehose is None:
            sahara.upload(image)
            firehose = Firehose(_session.transport, storage=storage)
            firehose.greet()
            firehose.configure()
        _session.firehose = firehose
    return _session.firehose


def edl_peek(job, serial, path, programmer, storage, address, length, target):
    """Read memory by a programmer's peek into ``target``."""
    before = time.monotonic()
    firehose = _edl(serial, path, programmer, storage)
    received = firehose.pipe.received_bytes
    with _Target(job, target, length) as file:
        firehose.peek(address, length, file.add)
        return file.measured(firehose.pipe.received_bytes - received, before)


def edl_find(serial, path, programmer, storage, name):
    """(first sector, sectors, sector size) of a partition, from the GPT on the board."""
    firehose = _edl(serial, path, programmer, storage)
    size = firehose.sector_bytes()
    found = find_partition(lambda at, count: firehose.read(0, at, count, size), size, name)
    return [found.first, found.sectors, size]


def edl_program(job, serial, path, programmer, storage, start, sector_bytes, source, label):
    """Write the file ``source`` to the storage, and read it back."""
    before = time.monotonic()
    firehose = _edl(serial, path, programmer, storage)
    data = Path(source).read_bytes()
    twice = 2 * len(data)
    firehose.program(
        0,
        start,
        data,
        sector_bytes,
        name=label,
        progress=lambda done, _: job.moved(done, twice, "writing"),
    )
    sectors = -(-len(data) // sector_bytes)
    step = max(1, (1 << 22) // sector_bytes)
    for at in range(0, sectors, step):
        count = min(step, sectors - at)
        wanted = data[at * sector_bytes : (at + count) * sector_bytes]
        got = firehose.read(0, start + at, count, sector_bytes)
        job.moved(len(data) + min(len(data), (at + count) * sector_bytes), twice, "reading back")
        if got[: len(wanted)] != wanted:
            raise BenchError(
                f"{label}: what was written at sector {start + at} reads back differently",
                part="usb",
                next_step="Flash again; a storage that does so twice is worn out.",
            )
    return {"bytes": len(data), "seconds": round(time.monotonic() - before, 3)}


def edl_reset(serial, path, programmer, storage):
    """Leave EDL by a reset."""
    _edl(serial, path, programmer, storage).power("reset")
    _session.close()


def edl_reset_to_edl(serial, path, programmer, storage):
    """Give the device back to the boot ROM, which wants a programmer again."""
    before = usb.find(serial=serial, path=path, modes=frozenset({Mode.EDL}))
    _edl(serial, path, programmer, storage).power("reset_to_edl")
    _session.close()
    end = time.monotonic() + _AGAIN_DEADLINE_S
    old = {one.identity.address for one in before}
    while time.monotonic() < end:
        again = usb.find(serial=serial, path=path, modes=frozenset({Mode.EDL}))
        if again and again[0].identity.address not in old:
            return
        time.sleep(0.05)
    raise BenchError("the board did not come back to EDL", part="usb")


def _die_with_parent():
    # A hung fastboot heeds nothing else, and a lost host must not leave one behind.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_words(output):
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - _WORDS))
    lines = output.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _sweep():
    """Remove the folders of agents that were killed: nobody holds them any more.

    Process ids would not tell: agents in containers may share the folder and not the ids.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_TOOL_FOLDER}*"):
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _new_folder():
    """A new folder, and the descriptor that holds it for as long as this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_TOOL_FOLDER))
        # Another agent's sweep may come between making and holding it: then there is a next one.
        with suppress(FileNotFoundError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, held
            os.close(held)


@contextmanager
def _tool_folder():
    folder, held = _new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def run_tool(job, command, deadline_s, given, taken):
    """Run a program to its end or its deadline; a hung one is killed: it may ignore SIGTERM.

    ``{folder}`` in ``command`` is a new folder that holds the files ``given`` (name: text); the
    file ``taken`` of it is handed out afterwards.
    """
    _session.close()
    _sweep()
    with _tool_folder() as folder:
        for name, text in given.items():
            Path(folder, name).write_text(text)
        words = [word.replace("{folder}", str(folder)) for word in command]
        output = Path(folder, ".output")
        with output.open("w+b") as file, output.open("rb") as look:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise BenchError(
                    f"{command[0]} cannot be run: {error.strerror}",
                    part="usb",
                    next_step=f"Install {command[0]} on the host of the board's USB cable.",
                ) from error
            end = time.monotonic() + deadline_s
            ended = os.pidfd_open(process.pid)
            try:
                while not (late := time.monotonic() > end):
                    if select.select([ended], [], [], _TOOL_LOOK_S)[0]:
                        break
                    job.moved(0, 0, _last_words(look))
            finally:
                os.close(ended)
            if late:
                process.kill()
            code = process.wait(_KILL_DEADLINE_S)
        text = output.read_bytes().decode("utf-8", "backslashreplace")
        size = 0
        if taken and code == 0 and not late and Path(folder, taken).is_file():
            size = Path(folder, taken).stat().st_size
            with Path(folder, taken).open("rb") as file, _Target(job, "", size) as target:
                while piece := file.read(1 << 20):
                    target.add(piece)
    return {"code": code, "output": text[-20000:], "late": late, "taken_bytes": size}


_JOBS = {
    function.__name__: function
    for function in (crash_read, crash_dump, edl_peek, edl_program, run_tool)
}

methods = {
    function.__name__: _answering(function)
    for function in (
        devices,
        close,
        begin,
        poll,
        crash_bytes,
        crash_regions,
        crash_reset,
        edl_identity,
        edl_find,
        edl_reset,
        edl_reset_to_edl,
    )
}
