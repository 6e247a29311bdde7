"""Devices that lie, and disks that fail: an error that names the step, in time, nothing lost."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.errors import BenchError, DeadlineError
from farm.qualcomm import sahara as sahara_module
from farm.qualcomm.firehose import Firehose
from farm.qualcomm.ramdump import RamDump, RegionFile, read_table
from farm.qualcomm.regions import MemoryRegion
from farm.qualcomm.sahara import Sahara
from farm.qualcomm.transport import RefusedError, ViolationError
from farm.virtual.usb_device import Device
from farm.virtual.usb_faults import UsbFaults
from tests.qualcomm.loop import LoopTransport, plugged

WITHIN_S = 4.0
HELLO = struct.pack("<12I", 1, 0x30, 2, 1, 0x400, 2, *[0] * 6)


@contextmanager
def talking_to(program: Callable[[Device], None]) -> Iterator[LoopTransport]:
    device, transport = plugged(program, UsbFaults())
    started = time.monotonic()
    try:
        yield transport
    finally:
        device.unplug()
    assert time.monotonic() - started < WITHIN_S


def in_memory_debug(
    device: Device, table: bytes = b"", *, address: int = 0x1000, length: int | None = None
) -> None:
    """The way to where reads are taken; then ``table`` for the first one."""
    device.send(HELLO)
    device.receive()
    size = len(table) if length is None else length
    device.send(struct.pack("<2I2Q", 0x10, 0x18, address, size))
    if table:
        device.receive()
        device.send_stream(table)


def connected(transport: LoopTransport, deadline_s: float = 0.3) -> Sahara:
    client = Sahara(transport, deadline_s=deadline_s)
    client.connect()
    return client


def wide(*regions: tuple[int, int]) -> bytes:
    return b"".join(
        struct.pack("<QQQ20s20s", 1, base, length, b"ddr", b"DDR.BIN") for base, length in regions
    )


def test_packets_of_no_length_without_end_are_no_transfer() -> None:
    def program(device: Device) -> None:
        in_memory_debug(device)
        device.receive()
        while True:
            device.to_host.put(b"")
            time.sleep(0.0005)

    with talking_to(program) as transport:
        client = connected(transport)
        client.memory_debug()
        with pytest.raises(ViolationError, match="packets of no length in a row"):
            client.read(0x8000_0000, 4096)


def test_a_device_that_trickles_is_late_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sahara_module, "_SLOWEST_BYTES_PER_S", 1 << 20)

    def program(device: Device) -> None:
        in_memory_debug(device)
        device.receive()
        while True:
            device.to_host.put(b"x")
            time.sleep(0.05)

    with talking_to(program) as transport:
        client = connected(transport)
        client.memory_debug()
        with pytest.raises(DeadlineError, match="reading 262144 bytes"):
            client.read(0x8000_0000, 1 << 18)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (wide((0x8000_0000, 1 << 63)), "claims to have"),
        (wide((0xFFFF_FFFF_FFFF_F000, 0x2000)), "past the end"),
        (wide((0x8000_0000, 0x1000)) + b"x" * 10, "no whole number"),
    ],
)
def test_a_table_that_cannot_be_is_named(table: bytes, words: str) -> None:
    with talking_to(lambda device: in_memory_debug(device, table)) as transport:
        client = connected(transport)
        with pytest.raises(ViolationError, match=words):
            read_table(client, client.memory_debug())


@pytest.mark.parametrize("length", [0, 1 << 20, (1 << 64) - 1])
def test_a_table_of_an_impossible_size_is_not_read(length: int) -> None:
    with talking_to(lambda device: in_memory_debug(device, length=length)) as transport:
        client = connected(transport)
        with pytest.raises(ViolationError, match=f"it has {length} bytes"):
            read_table(client, client.memory_debug())


def test_a_table_at_the_end_of_the_address_space_does_not_wrap() -> None:
    last = (1 << 64) - 8
    with talking_to(lambda device: in_memory_debug(device, address=last, length=64)) as transport:
        client = connected(transport)
        with pytest.raises(RefusedError, match="64-bit addresses only"):
            read_table(client, client.memory_debug())


@pytest.mark.parametrize("length", [0, 4096])
def test_a_boot_rom_that_asks_on_and_on_is_left(length: int) -> None:
    def program(device: Device) -> None:
        device.send(HELLO)
        device.receive()
        while True:
            device.send(struct.pack("<2I3Q", 0x12, 0x20, 13, 0, length))
            if length:
                device.receive_exactly(length)

    with talking_to(program) as transport, pytest.raises(ViolationError, match="on and on"):
        connected(transport).upload(bytes(10_000))


def test_a_boot_rom_that_only_greets_is_left() -> None:
    def program(device: Device) -> None:
        while True:
            device.send(HELLO)
            device.receive()

    with talking_to(program) as transport, pytest.raises(ViolationError, match="HELLO came"):
        connected(transport).upload(bytes(10_000))


@pytest.mark.parametrize("version", [0, 1, 3, 0xFFFF_FFFF])
def test_whatever_version_is_claimed_the_response_is_one_that_exists(version: int) -> None:
    answers: list[bytes] = []

    def program(device: Device) -> None:
        device.send(struct.pack("<12I", 1, 0x30, version, 99, 0, 77, *[9] * 6))
        answers.append(device.receive())
        device.send(struct.pack("<2I2Q", 0x10, 0x18, 0x1000, 64))

    with talking_to(program) as transport:
        connected(transport).memory_debug()
    assert struct.unpack_from("<I", answers[0], 8)[0] in (0, 1, 2)
    assert len(answers[0]) == 0x30


def test_an_answer_of_another_command_is_no_answer() -> None:
    def program(device: Device) -> None:
        device.send(HELLO)
        device.receive()
        device.send(struct.pack("<2I", 0x0B, 8))
        device.receive()
        device.send(struct.pack("<4I", 0x0E, 0x10, 7, 0x7FFF_FFFF))

    with talking_to(program) as transport, pytest.raises(ViolationError, match="2147483647 bytes"):
        connected(transport).execute(sahara_module.Execute.SERIAL_NUMBER)


# -- Firehose


def firehose(transport: LoopTransport) -> Firehose:
    return Firehose(transport, deadline_s=0.5)


def xml(body: str) -> bytes:
    return f'<?xml version="1.0"?><data>{body}</data>'.encode()


def test_logs_without_end_are_not_waited_for() -> None:
    def program(device: Device) -> None:
        device.receive()
        while True:
            device.send(xml('<log value="still here"/>'))

    with talking_to(program) as transport, pytest.raises(DeadlineError, match="nop"):
        firehose(transport).ask("nop", {})


@pytest.mark.parametrize(
    "answer",
    [
        '<response value="ACK" MaxPayloadSizeToTargetInBytesSupported="{}"/>'.format("9" * 5000),
        '<response value="ACK" MaxPayloadSizeToTargetInBytesSupported="-1"/>',
        '<response value="NAK" MaxPayloadSizeToTargetInBytes="0"/>',
        '<response value="ACK" MaxPayloadSizeToTargetInBytesSupported="\u0664\u0660\u0669\u0666"/>',
    ],
)
def test_a_payload_size_that_cannot_be_is_named(answer: str) -> None:
    def program(device: Device) -> None:
        while True:
            device.receive()
            device.send(xml(answer))

    with talking_to(program) as transport, pytest.raises(BenchError, match="configure"):
        firehose(transport).configure()


def test_a_storage_of_absurd_size_is_unknown() -> None:
    def program(device: Device) -> None:
        device.receive()
        device.send(xml(f'<log value="block_size: {"9" * 6000}"/><response value="ACK"/>'))

    with talking_to(program) as transport:
        assert firehose(transport).storage_info().sector_bytes < 10**18


@pytest.mark.parametrize(
    "answer",
    [
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><data>&a;</data>",
        b"<data><response value='ACK'</data>",
        b"\x7fELF and more",
        b"<data><evil/></data>",
    ],
)
def test_what_is_no_firehose_answer_is_said_so(answer: bytes) -> None:
    def program(device: Device) -> None:
        device.receive()
        device.send(answer)

    with talking_to(program) as transport, pytest.raises(ViolationError, match="nop"):
        firehose(transport).ask("nop", {})


def test_more_bytes_than_a_peek_asked_for_are_not_taken() -> None:
    def program(device: Device) -> None:
        device.receive()
        device.send(xml('<log value="0x00 0x01 0x02 0x03 0x04 "/><response value="ACK"/>'))

    got: list[bytes] = []
    with talking_to(program) as transport, pytest.raises(ViolationError, match="5 bytes came"):
        firehose(transport).peek(0x1000, 4, got.append)
    assert got == []


# -- dumps that are gone on with


class Memory:
    """A board's memory as a dump reads it; ``fail_after`` bytes the cable is pulled."""

    def __init__(self, pieces: dict[int, bytearray]) -> None:
        self.pieces = pieces
        self.fail_after: int | None = None
        self.read_bytes = 0

    def read(self, address: int, length: int) -> bytes:
        for base, data in self.pieces.items():
            if base <= address < base + len(data):
                self.read_bytes += length
                return bytes(data[address - base : address - base + length])
        raise AssertionError(hex(address))

    def read_into(
        self, address: int, length: int, sink: Callable[[memoryview], object], *, chunk_bytes: int
    ) -> None:
        for at in range(0, length, chunk_bytes):
            if self.fail_after is not None:
                self.fail_after -= chunk_bytes
                if self.fail_after < 0:
                    raise BenchError("unplugged", part="usb")
            sink(memoryview(self.read(address + at, min(chunk_bytes, length - at))))

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        return tuple(
            MemoryRegion(number, base, len(data), 1, "ddr", f"DDR{number}.BIN")
            for number, (base, data) in enumerate(self.pieces.items())
        )


def panic(seed: int) -> dict[int, bytearray]:
    """Two regions as panics leave them: mostly zeros and text that all of them share."""
    shared = bytearray(8 << 20)
    shared[: 2 << 20] = hashlib.shake_256(b"kernel").digest(2 << 20)
    shared[5 << 20 : (5 << 20) + 40960] = hashlib.shake_256(bytes([seed])).digest(40960)
    second = bytearray(2 << 20)
    second[:65536] = hashlib.shake_256(bytes([seed, 1])).digest(65536)
    return {0x8000_0000: shared, 0x1_0000_0000: second}


def dump(folder: Path, memory: Memory) -> tuple[RegionFile, ...]:
    return RamDump(folder).read(memory, memory.regions, chunk_bytes=1 << 16)


def assert_is(folder: Path, memory: Memory, files: tuple[RegionFile, ...]) -> None:
    for one, data in zip(files, memory.pieces.values(), strict=True):
        assert (folder / one.file).read_bytes() == data
        assert hashlib.sha256(data).hexdigest() == one.sha256


@pytest.mark.parametrize("at", [3 << 20, 6 << 20, (8 << 20) + 65536])
def test_an_interrupted_dump_never_goes_on_with_another_panic(tmp_path: Path, at: int) -> None:
    """Also when a region was finished, and the two memories share most of their pages."""
    first = Memory(panic(1))
    first.fail_after = at
    with pytest.raises(BenchError):
        dump(tmp_path, first)
    second = Memory(panic(2))
    # The part that differs may not have been read yet: then there is nothing to tell them apart.
    same_so_far = at == 3 << 20
    files = dump(tmp_path, second)
    assert_is(tmp_path, second, files)
    aside = list(tmp_path.glob("earlier-1/*.bin*"))
    assert bool(aside) is not same_so_far
    if aside:
        kept = max(aside, key=lambda one: one.stat().st_size).read_bytes()
        assert kept == bytes(first.pieces[0x8000_0000][: len(kept)])


def test_going_on_reads_little_again(tmp_path: Path) -> None:
    memory = Memory(panic(1))
    memory.fail_after = 9 << 20
    with pytest.raises(BenchError):
        dump(tmp_path, memory)
    memory.fail_after, memory.read_bytes = None, 0
    assert_is(tmp_path, memory, dump(tmp_path, memory))
    assert memory.read_bytes < 5 << 20


def test_a_finished_file_that_was_changed_since_is_read_again(tmp_path: Path) -> None:
    memory = Memory(panic(1))
    files = dump(tmp_path, memory)
    with (tmp_path / files[0].file).open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"\xff" * 8)
    assert_is(tmp_path, memory, dump(tmp_path, memory))


def test_a_disk_that_is_full_keeps_what_was_read_and_goes_on_later(tmp_path: Path) -> None:
    memory = Memory(panic(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(BenchError, match="cannot write in") as caught:
            dump(tmp_path, memory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.part == "disk"
    assert [one.stat().st_size for one in tmp_path.glob("*.part")] == [1 << 20]
    assert_is(tmp_path, memory, dump(tmp_path, memory))


def test_what_was_not_safe_when_the_host_went_down_is_not_believed(tmp_path: Path) -> None:
    memory = Memory(panic(1))
    memory.fail_after = 6 << 20
    with pytest.raises(BenchError):
        dump(tmp_path, memory)
    account = tmp_path / "ramdump.json"
    account.write_text(account.read_text().replace('"host_boot_id": "', '"host_boot_id": "x'))
    memory.fail_after, memory.read_bytes = None, 0
    assert_is(tmp_path, memory, dump(tmp_path, memory))
    assert memory.read_bytes == 10 << 20


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos.bin").write_bytes(os.urandom(10))
    dump(tmp_path, Memory(panic(1)))
    assert (tmp_path / "photos.bin").exists()
