"""Sahara: each step by itself, against bytes written out by hand and against the chip's half."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.errors import BenchError
from farm.qualcomm import sahara as sahara_module
from farm.qualcomm.ramdump import RamDump, read_range, read_table
from farm.qualcomm.sahara import (
    Execute,
    MemoryRead64,
    NotAPacketError,
    ReadData64,
    Sahara,
    parse,
)
from farm.qualcomm.transport import RefusedError, UsbLostError, ViolationError
from farm.virtual.board_memory import BoardMemory
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.sahara_device import ChipIdentity, SaharaDevice
from farm.virtual.usb_device import Device
from farm.virtual.usb_faults import UsbFaults
from tests.qualcomm.loop import LoopTransport, plugged

DRAM_BYTES = 4 << 20
IDENTITY = ChipIdentity(0x0BADCAFE, 0x000CC0E100000000, bytes(range(48)))


class Board:
    """A board in crash mode or in its boot ROM, in this process."""

    def __init__(self, dram: Path, faults: UsbFaults, *, crashed: bool = True) -> None:
        self.memory = BoardMemory(dram, DRAM_BYTES)
        self.was_reset = threading.Event()
        self.has_started = threading.Event()
        self.programmer = b""
        self.crashed = crashed
        self.plug(faults)

    def plug(self, faults: UsbFaults) -> None:
        half = SaharaDevice(
            IDENTITY,
            self.memory if self.crashed else None,
            on_reset=self._reset,
            on_programmer=self._start,
        )
        self.device, self.transport = plugged(half.run, faults)

    def _reset(self) -> None:
        self.was_reset.set()

    def _start(self, image: bytes) -> None:
        self.programmer = image
        self.has_started.set()


@pytest.fixture
def dram(tmp_path: Path) -> Path:
    file = tmp_path / "dram"
    data = bytearray(os.urandom(DRAM_BYTES))
    data[1 << 20 : 3 << 20] = bytes(2 << 20)
    file.write_bytes(data)
    return file


MakeBoard = Callable[..., Board]


@pytest.fixture
def make(dram: Path) -> Iterator[MakeBoard]:
    boards: list[Board] = []

    def build(faults: UsbFaults | None = None, *, crashed: bool = True) -> Board:
        boards.append(Board(dram, faults or UsbFaults(), crashed=crashed))
        return boards[-1]

    yield build
    for board in boards:
        board.device.unplug()
        board.memory.close()


def test_packets_have_the_documented_bytes() -> None:
    """Golden bytes written out from the table of packets, not by the code under test."""
    assert MemoryRead64(0x1_2345_6789, 0x100).pack() == bytes.fromhex(
        "11000000 18000000 8967452301000000 0001000000000000"
    )
    hello = bytes.fromhex("01000000 30000000 02000000 01000000 00040000 02000000") + bytes(24)
    assert parse(hello) == sahara_module.Hello(2, 1, 0x400, 2)
    asked = bytes.fromhex("12000000 20000000 0d00000000000000 0010000000000000 0008000000000000")
    assert parse(asked) == ReadData64(13, 0x1000, 0x800)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x01\0\0", "3 bytes"),
        (bytes.fromhex("77000000 08000000"), "0x77"),
        (bytes.fromhex("01000000 30000000"), "came with 8"),
        (bytes.fromhex("08000000 0c000000 00000000"), "has 8 bytes"),
    ],
)
def test_what_is_no_packet_is_said_so(data: bytes, words: str) -> None:
    with pytest.raises(NotAPacketError, match=words):
        parse(data)


def test_memory_is_read_as_it_is(make: MakeBoard, dram: Path) -> None:
    board = make()
    client = Sahara(board.transport)
    assert client.connect() is not None
    regions = read_table(client, client.memory_debug())
    assert [one.board_name for one in regions] == ["DDRCS0_0.BIN", "OCIMEM.BIN"]
    got = bytearray()
    read_range(client, regions, RAM_BASE_PADDR + 12345, 1 << 20, got.extend, chunk_bytes=40_000)
    assert bytes(got) == dram.read_bytes()[12345 : 12345 + (1 << 20)]
    client.reset()
    assert board.was_reset.wait(2.0)


def test_a_small_read_touches_little_more_than_it_wants(make: MakeBoard) -> None:
    board = make()
    client = Sahara(board.transport)
    client.connect()
    regions = read_table(client, client.memory_debug())
    read_range(client, regions, RAM_BASE_PADDR, 1 << 20, lambda _: None)
    assert client.pipe.received_bytes <= (1 << 20) * 1.01


def test_an_address_that_is_not_there_is_refused_with_its_offset(make: MakeBoard) -> None:
    client = Sahara(make().transport)
    client.connect()
    client.memory_debug()
    got = bytearray()
    with pytest.raises(RefusedError, match="invalid memory read") as caught:
        client.read_into(RAM_BASE_PADDR + DRAM_BYTES - 4096, 8192, got.extend, chunk_bytes=4096)
    assert caught.value.offset == 4096
    assert len(got) == 4096


def test_a_refusal_inside_of_the_data_is_never_data(make: MakeBoard) -> None:
    for granted in (0, 512, 4096, 100_000, (1 << 20) - 16, (1 << 20) - 512):
        board = make(UsbFaults(refuse_read_at=2, refuse_after=granted))
        client = Sahara(board.transport, deadline_s=1.0)
        client.connect()
        read_table(client, client.memory_debug())
        got = bytearray()
        with pytest.raises(RefusedError):
            client.read_into(RAM_BASE_PADDR, 1 << 20, got.extend, chunk_bytes=1 << 20)
        assert got == b""


def test_memory_that_holds_what_looks_like_a_refusal_is_still_data(
    make: MakeBoard, dram: Path
) -> None:
    data = bytearray(dram.read_bytes())
    data[4096 - 16 : 4096] = struct.pack("<4I", 4, 16, 13, 0x19)
    dram.write_bytes(data)
    client = Sahara(make().transport)
    client.connect()
    client.memory_debug()
    assert client.read(RAM_BASE_PADDR, 4096) == bytes(data[:4096])


def test_a_hello_that_somebody_else_read_is_asked_for_again(make: MakeBoard, dram: Path) -> None:
    for narrow in (False, True):
        client = Sahara(make(UsbFaults(swallow_hello=True, narrow=narrow)).transport)
        client.connect()
        client.memory_debug()
        assert client.read(RAM_BASE_PADDR, 4096) == dram.read_bytes()[:4096]


def test_a_session_that_was_cut_off_is_taken_over(make: MakeBoard, dram: Path) -> None:
    board = make()
    first = Sahara(board.transport)
    first.connect()
    first.memory_debug()
    board.transport.write(MemoryRead64(RAM_BASE_PADDR, 1 << 20).pack(), 1.0)
    board.transport.read(4096, 1.0)
    second = Sahara(LoopTransport(board.device))
    assert second.connect() is not None
    second.memory_debug()
    assert second.read(RAM_BASE_PADDR, 100_000) == dram.read_bytes()[:100_000]


def test_a_programmer_goes_up_whole(make: MakeBoard) -> None:
    image = programmer(70_000)
    for faults in (UsbFaults(), UsbFaults(narrow=True), UsbFaults(packet_bytes=1024)):
        board = make(faults, crashed=False)
        client = Sahara(board.transport)
        client.connect()
        client.upload(image)
        assert board.has_started.wait(2.0)
        assert board.programmer == image


def programmer(size_bytes: int) -> bytes:
    """An ELF file with one segment, as big as asked for."""
    head = bytearray(size_bytes)
    head[:4] = b"\x7fELF"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<2H", head, 54, 56, 1)
    struct.pack_into("<Q", head, 64 + 8, 4096)
    struct.pack_into("<Q", head, 64 + 32, size_bytes - 4096)
    head[4096:] = os.urandom(size_bytes - 4096)
    return bytes(head)


def test_a_file_that_is_no_programmer_is_refused(make: MakeBoard) -> None:
    client = Sahara(make(crashed=False).transport)
    client.connect()
    with pytest.raises(RefusedError, match="invalid image type"):
        client.upload(b"MZ" + bytes(9000))


def test_a_programmer_that_is_cut_short_is_not_filled_up(make: MakeBoard) -> None:
    client = Sahara(make(crashed=False).transport)
    client.connect()
    with pytest.raises(ViolationError, match="the programmer has 60000"):
        client.upload(programmer(70_000)[:60_000])


def test_command_mode_tells_serial_and_hardware_id(make: MakeBoard) -> None:
    client = Sahara(make(crashed=False).transport)
    client.connect()
    assert client.execute(Execute.SERIAL_NUMBER) == struct.pack("<I", 0x0BADCAFE)
    assert client.execute(Execute.HARDWARE_ID)[:8] == struct.pack("<Q", 0x000CC0E100000000)
    assert client.execute(Execute.PUBLIC_KEY_HASH) == bytes(range(48))


def test_a_full_dump_is_the_memory_and_has_holes_for_zeros(
    make: MakeBoard, dram: Path, tmp_path: Path
) -> None:
    client = Sahara(make().transport)
    client.connect()
    files = RamDump(tmp_path / "dump").read(client, read_table(client, client.memory_debug()))
    target = tmp_path / "dump" / files[0].file
    assert target.read_bytes() == dram.read_bytes()
    assert target.stat().st_blocks * 512 <= (2 << 20) + (64 << 10)


@pytest.mark.parametrize("at", [30, 300, 70_000, 1_500_000, 3_000_000, 4_100_000])
def test_a_dump_goes_on_where_the_cable_was_pulled(
    make: MakeBoard, dram: Path, tmp_path: Path, at: int
) -> None:
    board = make(UsbFaults(unplug_at=at))
    folder = tmp_path / "dump"

    def attempt() -> None:
        client = Sahara(board.transport, deadline_s=2.0)
        client.connect()
        RamDump(folder).read(client, read_table(client, client.memory_debug()), chunk_bytes=1 << 18)

    with pytest.raises(UsbLostError):
        attempt()
    board.plug(UsbFaults())
    attempt()
    assert (folder / "00-DDRCS0_0.BIN.bin").read_bytes() == dram.read_bytes()


def test_a_dump_of_another_panic_is_not_mixed_in(
    make: MakeBoard, dram: Path, tmp_path: Path
) -> None:
    board = make(UsbFaults(unplug_at=3_500_000))
    folder = tmp_path / "dump"
    for faults in (None, UsbFaults()):
        if faults is not None:
            dram.write_bytes(os.urandom(DRAM_BYTES))
            board.plug(faults)
        client = Sahara(board.transport, deadline_s=2.0)
        client.connect()
        try:
            RamDump(folder).read(
                client, read_table(client, client.memory_debug()), chunk_bytes=1 << 18
            )
        except UsbLostError:
            assert faults is None
    assert (folder / "00-DDRCS0_0.BIN.bin").read_bytes() == dram.read_bytes()


def test_names_from_the_board_are_never_paths(make: MakeBoard, tmp_path: Path) -> None:
    client = Sahara(make(UsbFaults(hostile_names=True)).transport)
    client.connect()
    folder = tmp_path / "deep" / "dump"
    files = RamDump(folder).read(client, read_table(client, client.memory_debug()))
    assert {path.name for path in folder.iterdir()} == {one.file for one in files} | {
        "ramdump.json"
    }
    assert not [one for one in tmp_path.rglob("*") if "pwn" in one.name and one.parent != folder]


def test_a_device_that_says_nothing_ends_in_a_named_deadline() -> None:
    def mute(device: Device) -> None:
        device.receive()

    _, transport = plugged(mute, UsbFaults())
    client = Sahara(transport, deadline_s=0.2)
    client.connect()
    with pytest.raises(BenchError, match="entering memory debug"):
        client.memory_debug()
