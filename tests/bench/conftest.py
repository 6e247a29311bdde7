"""A board of the tests: a real shell on a pty, behind real RFC2217 serial and HTTP power ports."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serial import rfc2217

from farm.bench.environment import Bench, open_bench

PROMPT = "root@virtual:~# "
BOOT_TEXT = b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x411fd070]\r\n"
PANIC_TEXT = (
    b"\r\n[   12.345678] sysrq: Trigger a crash\r\n"
    b"[   12.345680] Kernel panic - not syncing: sysrq triggered crash\r\n"
    b"[   12.345690] CPU: 0 PID: 1 Comm: sh\r\n[   12.40] Rebooting in 1 seconds..\r\n"
)
_STUB = "#!/bin/sh\nexit 1\n"


class _Port:
    """What PortManager controls."""

    def __init__(self) -> None:
        self.baudrate, self.bytesize, self.parity, self.stopbits = 115200, 8, "N", 1
        self.xonxoff = self.rtscts = self.ri = self.cd = False
        self.dtr = self.rts = self.cts = self.dsr = True
        self.breaks = 0

    @property
    def break_condition(self) -> bool:
        return False

    @break_condition.setter
    def break_condition(self, on: bool) -> None:
        self.breaks += on

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...


class FakeBoard:
    """Powered, it runs ``sh`` on a pty; BREAK and ``c`` make it print a panic and start anew.

    ``corrupt`` may change what the board sends; it is called with each chunk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stubs = folder / "stubs"
        stubs.mkdir()
        for name in ("dmesg", "mount"):
            (stubs / name).write_text(_STUB)
            (stubs / name).chmod(0o755)
        self.corrupt: Callable[[bytes], bytes] = lambda data: data
        self.dies_silently = False
        self.power_log: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial_port = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._manager: Any = None
        self._port = _Port()
        self._send_lock = threading.Lock()
        self._shell: subprocess.Popen[bytes] | None = None
        self._master = -1
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._power = ThreadingHTTPServer(("127.0.0.1", 0), self._power_handler())
        self.power_port = self._power.server_address[1]
        self._threads = [
            threading.Thread(target=self._serve, daemon=True),
            threading.Thread(target=self._power.serve_forever, args=(0.05,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _power_handler(self) -> type[BaseHTTPRequestHandler]:
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                value = self.path.removeprefix("/power/0").strip("/")
                board.power_log.append(value or "?")
                if value:
                    board.power(value == "1")
                answer = b"1" if board.is_on else b"0"
                self.send_response(200)
                self.send_header("Content-Length", "1")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None: ...

        return Handler

    @property
    def is_on(self) -> bool:
        return self._shell is not None

    @property
    def breaks(self) -> int:
        return self._port.breaks

    def power(self, on: bool) -> None:
        if on and self._shell is None:
            self._boot()
        elif not on and self._shell is not None:
            self._stop_shell()

    def _boot(self) -> None:
        self.say(BOOT_TEXT)
        self._master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        environment = {
            **os.environ,
            "PS1": PROMPT,
            "PATH": f"{self.folder / 'stubs'}:{os.environ['PATH']}",
        }
        # In a session of its own setsid would fork, and the shell's process be another one: it
        # would outlive the test, and loop, where SIGHUP is ignored.
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "sh", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=self.folder,
        )
        os.close(slave)
        os.write(self._wake_write, b"\0")

    def _stop_shell(self) -> None:
        shell, self._shell = self._shell, None
        master, self._master = self._master, -1
        if shell is not None:
            # Its jobs have process groups of their own, and a shell without a terminal spins.
            subprocess.run(["pkill", "-KILL", "-s", str(shell.pid)], check=False)
            shell.kill()
            os.close(master)
            shell.wait()

    def write(self, data: bytes) -> None:
        """PortManager's way out."""
        with self._send_lock:
            if self._client is not None:
                # The client may be gone; it is missed when it is read from.
                with contextlib.suppress(OSError):
                    self._client.sendall(data)

    def say(self, data: bytes) -> None:
        """Let the board print ``data``."""
        if not self.dies_silently:
            self.write(self.corrupt(data).replace(b"\xff", b"\xff\xff"))

    def hang_up(self) -> None:
        """Let the serial server drop its client."""
        if self._client is not None:
            self._client.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        after_break = 0
        while not self._stopping:
            watched = [self._listener.fileno(), self._wake_read]
            master, client = self._master, self._client
            watched += [master] if master >= 0 else []
            watched += [client.fileno()] if client is not None else []
            try:
                ready, _, _ = select.select(watched, [], [])
            except (OSError, ValueError):
                continue
            if self._wake_read in ready:
                os.read(self._wake_read, 100)
            if self._listener.fileno() in ready:
                self._client = self._listener.accept()[0]
                self._manager = rfc2217.PortManager(self._port, self)
            if master in ready:
                try:
                    self.say(os.read(master, 65536))
                except OSError:
                    continue
            if client is not None and client.fileno() in ready:
                try:
                    data = client.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    client.close()
                    # Another client may have been taken in the same turn.
                    if self._client is client:
                        self._client = None
                    continue
                if self._client is not client:
                    client.close()  # its answers would go to the one that came after it
                    continue
                plain = b"".join(self._manager.filter(data))
                if self._port.breaks > after_break and b"c" in plain:
                    after_break = self._port.breaks
                    self.panic()
                elif plain and self._master >= 0:
                    os.write(self._master, plain)

    def panic(self) -> None:
        """Panic, and come back."""
        self._stop_shell()
        self.say(PANIC_TEXT)
        self._boot()

    def close(self) -> None:
        self._stopping = True
        os.write(self._wake_write, b"\0")
        self._threads[0].join(2)
        self._stop_shell()
        self._power.shutdown()
        self._power.server_close()
        self._listener.close()
        if self._client is not None:
            self._client.close()


def environment_text(board: FakeBoard, extra_options: str = "", protocol: str = "rfc2217") -> str:
    return f"""\
imports: [farm.bench.strategy]
targets:
  main:
    features: [sysrq, break]
    options:
      board: fake
      prompt: '{PROMPT}'
      virtual: true
      deadlines_s: {{boot: 10, script: 10}}
{extra_options}
    resources:
      NetworkSerialPort:
        {{host: localhost, port: {board.serial_port}, speed: 115200, protocol: {protocol}}}
      NetworkPowerPort:
        model: simplerest
        host: 'http://localhost:{board.power_port}/power/{{index}}/{{value}}'
        index: '0'
    drivers:
      RecordedConsole: {{}}
      BoardShell: {{}}
      NetworkPowerDriver: {{delay: 0.0}}
      PanicFarmStrategy: {{}}
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeBoard]:
    folder = tmp_path / "board"
    folder.mkdir()
    fake = FakeBoard(folder)
    yield fake
    fake.close()


@pytest.fixture
def lg_env(board: FakeBoard, tmp_path: Path) -> Path:
    path = tmp_path / "env.yaml"
    path.write_text(environment_text(board))
    return path


@pytest.fixture
def bench(lg_env: Path) -> Iterator[Bench]:
    with open_bench(lg_env) as opened:
        yield opened


@pytest.fixture
def shell_bench(bench: Bench) -> Bench:
    bench.ensure_shell()
    return bench
