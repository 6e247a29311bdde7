"""The serial line without a board: the test sits at the UART's end of the FIFOs."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import serial

from farm.virtual.serial_line import SerialLine

EVERY_BYTE = bytes(range(256))


@dataclass
class Bench:
    port: int
    uart_in: int
    uart_out: int
    line: SerialLine
    loop: asyncio.AbstractEventLoop
    uart: list[bytes | str] = field(default_factory=list)
    broke: threading.Event = field(default_factory=threading.Event)

    def open(self) -> serial.Serial:
        return serial.serial_for_url(f"rfc2217://localhost:{self.port}", timeout=10)

    def transmit(self, data: bytes) -> threading.Thread:
        """Send from the UART, as fast as the line takes it."""

        def run() -> None:
            rest = data
            while rest:
                rest = rest[os.write(self.uart_out, rest) :]

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


def on_bench(tmp_path: Path, visit: Callable[[Bench], None], baud: int | None = None) -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        bench: Bench

        async def on_break() -> None:
            await asyncio.to_thread(note_break)

        def note_break() -> None:
            bench.uart.append("BREAK")
            bench.broke.set()

        line = SerialLine(tmp_path / "serial", on_break, lambda *_, **__: None, baud)
        line.powered = True
        await line.serve(listener)
        bench = Bench(
            listener.getsockname()[1],
            os.open(tmp_path / "serial.in", os.O_RDONLY),
            os.open(tmp_path / "serial.out", os.O_WRONLY),
            line,
            asyncio.get_running_loop(),
        )
        try:
            async with asyncio.timeout(30):
                await asyncio.to_thread(visit, bench)
        finally:
            line.close()
            os.close(bench.uart_in)
            os.close(bench.uart_out)

    asyncio.run(run())


def test_every_byte_value_passes_both_ways(tmp_path: Path) -> None:
    def visit(bench: Bench) -> None:
        with bench.open() as port:
            bench.transmit(EVERY_BYTE * 4).join()
            assert port.read(1024) == EVERY_BYTE * 4
            port.write(EVERY_BYTE * 4)
            got = b""
            while len(got) < 1024:
                got += os.read(bench.uart_in, 1024)
            assert got == EVERY_BYTE * 4

    on_bench(tmp_path, visit)


def test_break_keeps_its_place_between_the_bytes(tmp_path: Path) -> None:
    def visit(bench: Bench) -> None:
        with bench.open() as port:
            port.write(b"before")
            bench.uart.append(os.read(bench.uart_in, 100))
            port.send_break(0.01)
            assert bench.broke.wait(5)
            port.write(b"c")
            bench.uart.append(os.read(bench.uart_in, 100))
        assert bench.uart == [b"before", "BREAK", b"c"]

    on_bench(tmp_path, visit)


def test_megabytes_pass_without_loss(tmp_path: Path) -> None:
    data = (EVERY_BYTE * 4096)[: 1 << 20] * 2

    def visit(bench: Bench) -> None:
        with socket.create_connection(("localhost", bench.port)) as client:
            client.settimeout(10)
            client.sendall(b"\n")
            os.read(bench.uart_in, 1)
            sender = bench.transmit(data)
            wanted = len(data) + data.count(b"\xff")
            got = bytearray()
            # Telnet negotiation comes first; it is never longer than this.
            while len(got) < wanted:
                got += client.recv(1 << 20)
            sender.join()
        assert bytes(got)[-wanted:].replace(b"\xff\xff", b"\xff")[-100_000:] == data[-100_000:]

    on_bench(tmp_path, visit)


def test_baud_paces_the_output(tmp_path: Path) -> None:
    """960 characters at 9600 baud are a second on a line."""

    def visit(bench: Bench) -> None:
        with bench.open() as port:
            began = time.monotonic()
            sender = bench.transmit(b"x" * 960)
            assert len(port.read(960)) == 960
            assert 0.9 <= time.monotonic() - began < 3
            sender.join()

    on_bench(tmp_path, visit, baud=9600)


def test_a_second_client_is_refused_and_gets_the_line_when_it_is_free(tmp_path: Path) -> None:
    def visit(bench: Bench) -> None:
        first = bench.open()
        with socket.create_connection(("localhost", bench.port)) as second:
            second.settimeout(5)
            assert b"in use by 127.0.0.1" in second.recv(1000)
        first.close()
        with bench.open() as third:
            bench.transmit(b"hello").join()
            assert third.read(5) == b"hello"

    on_bench(tmp_path, visit)


def test_silence_swallows_what_the_board_sends(tmp_path: Path) -> None:
    def visit(bench: Bench) -> None:
        with bench.open() as port:
            bench.line.silent = True
            bench.transmit(b"lost").join()
            port.timeout = 0.3
            assert port.read(4) == b""
            bench.line.silent = False
            bench.transmit(b"kept").join()
            port.timeout = 5
            assert port.read(4) == b"kept"

    on_bench(tmp_path, visit)


def test_hanging_up_disconnects_the_client(tmp_path: Path) -> None:
    def visit(bench: Bench) -> None:
        with socket.create_connection(("localhost", bench.port)) as client:
            client.settimeout(5)
            client.sendall(b"\n")
            os.read(bench.uart_in, 1)
            bench.loop.call_soon_threadsafe(bench.line.hang_up)
            try:
                while client.recv(1000):
                    pass
            except ConnectionResetError:
                pass

    on_bench(tmp_path, visit)
