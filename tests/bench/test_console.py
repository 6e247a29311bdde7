from __future__ import annotations

import os
import pty
import socket
import threading
import time
import tty
from pathlib import Path
from typing import Any

import pexpect
import pytest
from labgrid.protocol import ConsoleProtocol
from serial import rfc2217

from farm.bench.environment import Bench
from farm.bench.ports import Rfc2217Link, SocketLink, TtyLink, _BulkSerial
from farm.bench.stream import ConsoleStream
from farm.errors import BenchError, UsageError

IAC, SB, SE = rfc2217.IAC, rfc2217.SB, rfc2217.SE


def decoder() -> tuple[Any, list[bytes]]:
    bulk = _BulkSerial(lambda data: None, lambda reason: None)
    heard: list[bytes] = []
    bulk._telnet_process_subnegotiation = heard.append
    bulk._telnet_negotiate_option = lambda command, option: heard.append(command + option)
    bulk._telnet_process_command = heard.append
    return bulk, heard


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_telnet_is_decoded_however_it_is_cut(size: int) -> None:
    bulk, heard = decoder()
    option = rfc2217.COM_PORT_OPTION + b"\x65" + IAC + IAC + b"\x01"
    wire = (
        b"ab" + IAC + IAC + b"c" + IAC + SB + option + IAC + SE + b"d"
        + IAC + rfc2217.WILL + rfc2217.BINARY + b"e" + IAC + b"\xf1" + b"f"
        + IAC + SB + b"x" + IAC + IAC + IAC + SE + IAC + IAC
    )  # fmt: skip
    plain, rest = b"", b""
    for at in range(0, len(wire), size):
        some, rest = bulk._decode(rest + wire[at : at + size])
        plain += some
    assert plain == b"ab\xffcdef\xff"
    assert rest == b""
    assert heard == [
        rfc2217.COM_PORT_OPTION + b"\x65\xff\x01",
        rfc2217.WILL + rfc2217.BINARY,
        b"\xf1",
        b"x\xff",
    ]


def test_a_subnegotiation_without_an_end_is_an_error() -> None:
    bulk, _ = decoder()
    with pytest.raises(ValueError, match="without an end"):
        bulk._decode(IAC + SB + bytes(10000))


def test_an_answer_that_was_not_asked_for_is_passed_over() -> None:
    bulk = _BulkSerial(lambda data: None, lambda reason: None)
    bulk.logger = None
    bulk._rfc2217_options = {
        "baudrate": rfc2217.TelnetSubnegotiation(
            bulk, "baudrate", rfc2217.SET_BAUDRATE, rfc2217.SERVER_SET_BAUDRATE
        )
    }
    answer = rfc2217.COM_PORT_OPTION + rfc2217.SERVER_SET_BAUDRATE + b"\0\1\xc2\0"
    assert bulk._decode(IAC + SB + answer + IAC + SE + b"on") == (b"on", b"")


def test_eight_megabytes_arrive_whole_over_rfc2217(board: Any, bench: Bench) -> None:
    data = bytes(range(256)) * 4096 * 8
    began = time.monotonic()
    for at in range(0, len(data), 1 << 16):
        board.say(data[at : at + (1 << 16)])
    board.say(b"THE-END")
    seen = bench.console.wait_for("THE-END", 60, "the end")
    rate = len(data) / (time.monotonic() - began)
    assert seen.before[-len(data) :] == data
    assert rate > 2e6, f"{rate / 1e6:.1f} MB/s"


def test_the_console_records_from_before_power_on(board: Any, bench: Bench, tmp_path: Path) -> None:
    bench.console.record_to(tmp_path / "cycle")
    bench.ensure_shell()
    bench.console.record_to(None)
    raw = (tmp_path / "cycle" / "console.raw").read_bytes()
    assert b"Booting Linux" in raw
    assert raw.index(b"Booting Linux") < raw.index(b"root@virtual:~# ")


def test_it_serves_labgrid_s_protocol(shell_bench: Bench) -> None:
    console = shell_bench.target.get_driver(ConsoleProtocol)
    console.sendline("echo one$((1+1))three")
    index, before, match, after = console.expect(["never", rb"one(\d)three"], timeout=5)
    assert (index, match.group(1), after) == (1, b"2", b"one2three")
    assert isinstance(before, bytes)
    assert console.settle(0.2, 5)
    assert console.expect(["never", pexpect.TIMEOUT], timeout=0.05)[0] == 1
    with pytest.raises(pexpect.TIMEOUT):
        console.expect("never", timeout=0.05)
    with pytest.raises(pexpect.TIMEOUT):
        console.read(timeout=0.05)
    console.write(b"echo abc\n")
    assert console.read(size=5, timeout=5, max_size=3) == b"abc"


def test_a_break_reaches_the_board(board: Any, bench: Bench) -> None:
    bench.console.send_break(0.01)
    bench.console.reopen()
    assert board.breaks == 1


def test_a_port_that_vanishes_ends_the_wait_at_once(board: Any, shell_bench: Bench) -> None:
    board.hang_up()
    began = time.monotonic()
    with pytest.raises(BenchError) as caught:
        shell_bench.console.wait_for("never", 60, "a word")
    assert caught.value.part == "serial"
    assert time.monotonic() - began < 5
    shell_bench.ensure_shell()
    assert shell_bench.shell.run_script("echo again", 10) == "again"


def test_paced_writing(shell_bench: Bench) -> None:
    shell_bench.console.txdelay, shell_bench.console.txchunk = 0.001, 8
    assert shell_bench.shell.run_script("echo slow", 20) == "slow"


def test_a_port_nobody_serves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stream = ConsoleStream()
    for make in (
        lambda: Rfc2217Link("127.0.0.1", port, 115200, stream.feed, stream.lose),
        lambda: SocketLink("127.0.0.1", port, stream.feed, stream.lose),
        lambda: TtyLink("/dev/does-not-exist", 115200, stream.feed, stream.lose),
    ):
        with pytest.raises(BenchError) as caught:
            make()
        assert caught.value.part == "serial"


def test_a_server_s_refusal_is_quoted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"this line is in use by bob\r\n")
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        stream = ConsoleStream()
        with pytest.raises(BenchError, match="in use by bob"):
            Rfc2217Link("127.0.0.1", listener.getsockname()[1], 9600, stream.feed, stream.lose, 0.3)


def test_a_bare_socket_cannot_break_but_reads_and_writes() -> None:
    stream = ConsoleStream()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = SocketLink("127.0.0.1", listener.getsockname()[1], stream.feed, stream.lose)
        peer, _ = listener.accept()
        peer.sendall(b"hello")
        stream.wait_for("hello", 5, "hello")
        link.write(b"hi")
        assert peer.recv(10) == b"hi"
        with pytest.raises(UsageError, match="rfc2217"):
            link.set_break(True)
        peer.close()
        with pytest.raises(BenchError, match="vanished"):
            stream.wait_for("never", 60, "a word")
        link.close()


def test_a_local_port_reads_writes_and_is_missed_when_it_goes() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream = ConsoleStream()
    link = TtyLink(os.ttyname(slave), 115200, stream.feed, stream.lose)
    os.write(master, b"hello")
    stream.wait_for("hello", 5, "hello")
    link.write(b"hi")
    assert os.read(master, 10) == b"hi"
    os.close(slave)
    os.close(master)
    with pytest.raises(BenchError) as caught:
        stream.wait_for("never", 60, "a word")
    assert caught.value.part == "serial"
    link.close()


def test_closing_is_quick(shell_bench: Bench) -> None:
    shell_bench.console.write(b"while :; do echo busy; done\n")
    shell_bench.console.wait_for("busy", 10, "noise")
    began = time.monotonic()
    shell_bench.close()
    assert time.monotonic() - began < 2
