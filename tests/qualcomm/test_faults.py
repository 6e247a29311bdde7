"""Every fault at every step: correct bytes, or an error that names the step, within a deadline.

The combinations are generated: each fault alone, each pair of faults that can be on together, and
the cable pulled and the link refused at places spread over the whole session.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path

import pytest

from farm.errors import BenchError
from farm.qualcomm.firehose import Firehose
from farm.qualcomm.ramdump import read_range, read_table
from farm.qualcomm.sahara import Sahara
from farm.qualcomm.transport import RefusedError, UsbLostError
from farm.virtual.board_memory import BoardMemory
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.disk import SECTOR_BYTES, Disk
from farm.virtual.firehose_device import FirehoseDevice
from farm.virtual.sahara_device import ChipIdentity, SaharaDevice
from farm.virtual.usb_faults import UsbFaults
from tests.qualcomm.loop import plugged

DRAM_BYTES = 1 << 20
WANTED = (RAM_BASE_PADDR + 0x1234, 300_000)
CHUNK_BYTES = 1 << 16
DEADLINE_S = 1.0
# Nothing may take longer than a few steps' deadlines together.
WITHIN_S = 8.0

# Harmless ones: whatever the device does with packets, the bytes must arrive.
HARMLESS: dict[str, dict[str, object]] = {
    "missing-zlp": {"missing_zlp": True},
    "extra-zlp": {"extra_zlp": True},
    "leading-zlp": {"leading_zlp": True},
    "short-reads-1000": {"short_reads": 1000},
    "short-reads-512": {"short_reads": 512},
    "short-reads-16": {"short_reads": 4096 + 16},
    "packets-of-1024": {"packet_bytes": 1024},
    "packets-of-64": {"packet_bytes": 64},
    "32-bit": {"narrow": True},
    "hello-swallowed": {"swallow_hello": True},
    "hostile-names": {"hostile_names": True},
    "slow-link": {"rate_mb_s": 20.0},
}
# What cannot be on at once: two values of one thing.
_KIND = {name: name.split("-")[0] for name in HARMLESS}


def harmless_sets() -> list[tuple[str, ...]]:
    single = [(name,) for name in HARMLESS]
    pairs = [
        pair for pair in itertools.combinations(HARMLESS, 2) if _KIND[pair[0]] != _KIND[pair[1]]
    ]
    return [(), *single, *pairs]


def faults_of(names: tuple[str, ...], **more: object) -> UsbFaults:
    faults = UsbFaults()
    for name in names:
        for key, value in HARMLESS[name].items():
            setattr(faults, key, value)
    for key, value in more.items():
        setattr(faults, key, value)
    return faults


@pytest.fixture(scope="module")
def dram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("board") / "dram"
    file.write_bytes(os.urandom(DRAM_BYTES))
    return file


def truth(dram: Path) -> bytes:
    start = WANTED[0] - RAM_BASE_PADDR
    return dram.read_bytes()[start : start + WANTED[1]]


def read_by_sahara(dram: Path, faults: UsbFaults) -> tuple[bytes, BenchError | None]:
    """What a session delivers before it ends, well or with an error."""
    memory = BoardMemory(dram, DRAM_BYTES)
    half = SaharaDevice(
        ChipIdentity(1, 2, bytes(48)), memory, on_reset=lambda: None, on_programmer=lambda _: None
    )
    device, transport = plugged(half.run, faults)
    got = bytearray()
    failed = None
    started = time.monotonic()
    try:
        client = Sahara(transport, deadline_s=DEADLINE_S)
        client.connect()
        regions = read_table(client, client.memory_debug())
        read_range(client, regions, *WANTED, got.extend, chunk_bytes=CHUNK_BYTES)
    except BenchError as error:
        failed = error
    finally:
        device.unplug()
        memory.close()
    assert time.monotonic() - started < WITHIN_S
    return bytes(got), failed


@pytest.mark.parametrize("names", harmless_sets(), ids="+".join)
def test_whatever_the_packets_look_like_the_bytes_arrive(
    dram: Path, names: tuple[str, ...]
) -> None:
    got, failed = read_by_sahara(dram, faults_of(names))
    assert failed is None
    assert got == truth(dram)


PULLED = sorted({0, 1, 47, 48, 49, 71, 100, 200, 500, *range(700, 300_000, 7_919)})


@pytest.mark.parametrize("at", PULLED)
def test_a_cable_pulled_anywhere_is_named_and_no_byte_before_is_wrong(dram: Path, at: int) -> None:
    got, failed = read_by_sahara(dram, UsbFaults(unplug_at=at))
    assert isinstance(failed, UsbLostError)
    assert failed.step
    assert failed.message.startswith("loop: ")
    assert got == truth(dram)[: len(got)]


REFUSED = [
    (read, after, names)
    for read in (1, 2, 3, 5)
    for after in (0, 16, 512, 4096, CHUNK_BYTES - 512, CHUNK_BYTES - 16)
    for names in ((), ("short-reads-1000",), ("leading-zlp",), ("32-bit",), ("packets-of-1024",))
]


@pytest.mark.parametrize(
    ("read", "after", "names"), REFUSED, ids=[f"{r}-{a}-{'+'.join(n)}" for r, a, n in REFUSED]
)
def test_a_refused_read_is_an_error_and_never_data(
    dram: Path, read: int, after: int, names: tuple[str, ...]
) -> None:
    got, failed = read_by_sahara(dram, faults_of(names, refuse_read_at=read, refuse_after=after))
    assert failed is not None
    assert failed.message.startswith("loop: ")
    if read > 1:
        assert isinstance(failed, RefusedError)
        assert "reading" in failed.step
    assert got == truth(dram)[: len(got)]


# -- Firehose

FIREHOSE_FAULTS: dict[str, dict[str, object]] = {
    name: HARMLESS[name]
    for name in ("missing-zlp", "extra-zlp", "leading-zlp", "short-reads-1000", "packets-of-1024")
} | {"log-after": {"log_after": True}, "peek-old": {"peek_spelling": "SizeInBytes"}}
IMAGE = os.urandom(5 * SECTOR_BYTES + 100)


def work(firehose: Firehose) -> tuple[bytes, bytes]:
    """One of everything; returns what read and peek delivered."""
    firehose.greet(1.0)
    firehose.configure()
    assert firehose.storage_info().sector_bytes in (0, SECTOR_BYTES)
    firehose.program(0, 1000, IMAGE, SECTOR_BYTES, name="image")
    got = firehose.read(0, 1000, 6, SECTOR_BYTES)
    firehose.erase(0, 1001, 1, SECTOR_BYTES)
    peeked = bytearray()
    firehose.peek(RAM_BASE_PADDR + 0x100, 3000, peeked.extend)
    firehose.set_bootable(0)
    firehose.power("reset")
    return got, bytes(peeked)


def by_firehose(
    dram: Path, tmp_path: Path, faults: UsbFaults
) -> tuple[tuple[bytes, bytes] | None, BenchError | None, bool]:
    memory = BoardMemory(dram, DRAM_BYTES)
    disk = Disk(tmp_path / "disk")
    disk.create()
    reset = threading.Event()
    half = FirehoseDevice(
        disk, memory, 7, on_power=lambda _: reset.set(), on_bootable=lambda _: None
    )
    device, transport = plugged(half.run, faults, product=0x9008)
    started = time.monotonic()
    try:
        return work(Firehose(transport, deadline_s=DEADLINE_S)), None, reset.wait(1.0)
    except BenchError as error:
        return None, error, reset.is_set()
    finally:
        device.unplug()
        memory.close()
        disk.close()
        assert time.monotonic() - started < WITHIN_S


@pytest.mark.parametrize(
    "names",
    [(), *((name,) for name in FIREHOSE_FAULTS), *itertools.combinations(FIREHOSE_FAULTS, 2)],
    ids="+".join,
)
def test_firehose_does_its_work_whatever_the_packets_look_like(
    dram: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    faults = UsbFaults()
    for name in names:
        for key, value in FIREHOSE_FAULTS[name].items():
            setattr(faults, key, value)
    done, failed, was_reset = by_firehose(dram, tmp_path, faults)
    assert failed is None
    assert done is not None
    assert done[0][: len(IMAGE)] == IMAGE
    assert done[1] == dram.read_bytes()[0x100 : 0x100 + 3000]
    assert was_reset


@pytest.mark.parametrize("at", range(1, 9))
def test_a_refused_command_is_named(dram: Path, tmp_path: Path, at: int) -> None:
    _, failed, _ = by_firehose(dram, tmp_path, UsbFaults(nak_at=at, peek_spelling="SizeInBytes"))
    if at == 6:
        # The refused spelling of peek is followed by the other one.
        assert failed is None
        return
    assert isinstance(failed, RefusedError)
    assert "this one is refused" in failed.message
    steps = ("configure", "getstorageinfo", "program", "read", "erase", "", "peek", "setbootable")
    assert steps[at - 1] in failed.step


@pytest.mark.parametrize("at", [1, 500, 2000, 4000, 9000, 20_000, 26_000, 40_000, 60_000])
def test_a_cable_pulled_under_firehose_is_named(dram: Path, tmp_path: Path, at: int) -> None:
    _, failed, was_reset = by_firehose(dram, tmp_path, UsbFaults(unplug_at=at))
    assert not was_reset
    assert isinstance(failed, UsbLostError)
    assert failed.step


def test_there_are_at_least_two_hundred_combinations() -> None:
    firehose = 1 + len(FIREHOSE_FAULTS) + len(FIREHOSE_FAULTS) * (len(FIREHOSE_FAULTS) - 1) // 2
    assert len(harmless_sets()) + len(PULLED) + len(REFUSED) + firehose >= 200
