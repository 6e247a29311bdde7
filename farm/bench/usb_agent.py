"""What runs where the board's USB cable ends: loaded into a labgrid agent, here or on an exporter.

The host of the cable needs this farm installed, as it needs labgrid. Every function takes and
returns JSON values; an error of the farm comes back as ``{"error": ...}``, for an agent passes on
an exception's text only. Bulk data goes to a file on the cable's host; ``piece`` hands it out.
"""

import base64
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from farm.errors import BenchError, FarmError
from farm.qualcomm import usb
from farm.qualcomm.firehose import Firehose
from farm.qualcomm.identity import Mode
from farm.qualcomm.ramdump import RamDump, read_range, read_table
from farm.qualcomm.sahara import Execute, Sahara

_KILL_DEADLINE_S = 5.0
_AGAIN_DEADLINE_S = 10.0


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


def _answering(function):
    def call(*args, **kwargs):
        try:
            return {"answer": function(*args, **kwargs)}
        except FarmError as error:
            _session.close()
            return {
                "error": {
                    "kind": type(error).__name__,
                    "message": error.message,
                    "next_step": error.next_step,
                    "part": getattr(error, "part", "usb"),
                }
            }

    return call


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


def crash_read(serial, path, address, length, target):
    """Read memory in crash mode into the file ``target``, through Sahara."""
    before = time.monotonic()
    sahara = _crash(serial, path)
    received = sahara.pipe.received_bytes
    with Path(target).open("wb") as file:
        read_range(sahara, _session.regions, address, length, file.write)
    return _measured(target, sahara.pipe.received_bytes - received, before)


def crash_regions(serial, path):
    """The region table of crash mode."""
    _crash(serial, path)
    return [
        {
            "base": one.base,
            "length_bytes": one.length_bytes,
            "board_name": one.board_name,
            "description": one.description,
        }
        for one in _session.regions
    ]


def crash_dump(serial, path, folder):
    """Dump every region into ``folder``, or go on with that."""
    before = time.monotonic()
    sahara = _crash(serial, path)
    received = sahara.pipe.received_bytes
    files = RamDump(Path(folder)).read(sahara, _session.regions)
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


def _edl(serial, path, programmer, storage):
    if _session.firehose is None:
        _session.close()
        _session.transport = usb.open_device(
            serial=serial, path=path, modes=frozenset({Mode.EDL}), step="starting a programmer"
        )
        sahara = Sahara(_session.transport)
        try:
            image = Path(programmer).read_bytes()
        except OSError as error:
            raise BenchError(
                f"the programmer {programmer} cannot be read: {error.strerror}", part="disk"
            ) from error
        sahara.connect()
        sahara.upload(image)
        firehose = Firehose(_session.transport, storage=storage)
        firehose.greet()
        firehose.configure()
        _session.firehose = firehose
    return _session.firehose


def edl_peek(serial, path, programmer, storage, address, length, target):
    """Read memory by a programmer's peek into the file ``target``."""
    before = time.monotonic()
    firehose = _edl(serial, path, programmer, storage)
    received = firehose.pipe.received_bytes
    with Path(target).open("wb") as file:
        firehose.peek(address, length, file.write)
    return _measured(target, firehose.pipe.received_bytes - received, before)


def edl_find(serial, path, programmer, storage, name):
    """(first sector, sectors, sector size) of a partition, from the GPT on the board."""
    from farm.qualcomm.gpt import find_partition

    firehose = _edl(serial, path, programmer, storage)
    size = firehose.sector_bytes()
    found = find_partition(lambda at, count: firehose.read(0, at, count, size), size, name)
    return [found.first, found.sectors, size]


def edl_program(serial, path, programmer, storage, start, sector_bytes, source, label):
    """Write the file ``source`` to the storage, and read it back."""
    before = time.monotonic()
    firehose = _edl(serial, path, programmer, storage)
    data = Path(source).read_bytes()
    firehose.program(0, start, data, sector_bytes, name=label)
    sectors = -(-len(data) // sector_bytes)
    step = max(1, (1 << 22) // sector_bytes)
    for at in range(0, sectors, step):
        count = min(step, sectors - at)
        wanted = data[at * sector_bytes : (at + count) * sector_bytes]
        got = firehose.read(0, start + at, count, sector_bytes)
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


def run_tool(command, deadline_s):
    """Run a program to its end or its deadline; a hung one is killed: it may ignore SIGTERM."""
    _session.close()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise BenchError(
                f"{command[0]} cannot be run: {error.strerror}",
                part="usb",
                next_step=f"Install {command[0]} on the host of the board's USB cable.",
            ) from error
        late = False
        try:
            code = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            code = process.wait(_KILL_DEADLINE_S)
        output.seek(0)
        text = output.read().decode("utf-8", "backslashreplace")
    return {"code": code, "output": text[-20000:], "late": late}


def temporary():
    """A new folder on this host."""
    return tempfile.mkdtemp(prefix="farm-usb-")


def piece(path, offset, size):
    """Bytes of a file on this host, base64."""
    with Path(path).open("rb") as file:
        return base64.b64encode(os.pread(file.fileno(), size, offset)).decode()


def _measured(target, received, before):
    with Path(target).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "bytes": Path(target).stat().st_size,
        "received_bytes": received,
        "seconds": round(time.monotonic() - before, 3),
        "sha256": digest,
    }


methods = {
    function.__name__: _answering(function)
    for function in (
        devices,
        close,
        crash_read,
        crash_regions,
        crash_dump,
        crash_reset,
        edl_identity,
        edl_peek,
        edl_find,
        edl_program,
        edl_reset,
        edl_reset_to_edl,
        run_tool,
        temporary,
        piece,
    )
}
