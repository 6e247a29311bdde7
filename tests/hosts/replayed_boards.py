"""Boards that replay a console over TCP: what a worker sees of a board, without one.

A board serves one connection at a time. Who connects says for which night and cell, gets the
console piece by piece, and at its end the word that proves that it got all of it. A connection that
comes while another is there is a collision: two have worked on one board.
"""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

CONSOLE = b"".join(b"[%5d.000000] panicdump: line of a console\n" % line for line in range(40))
PROOF = b"byte-identical\n"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@dataclass
class ReplayedBoard:
    """A board; ``port`` is another one whenever it has been plugged in again."""

    name: str
    cycle_s: float = 0.25
    port: int = 0
    collisions: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    _server: _Server | None = None
    _at_it: set[str] = field(default_factory=set)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plug_in(self) -> None:
        board = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                board._serve(self.request)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def unplug(self) -> None:
        """As a host that dies: every connection is cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None
        with self._lock:
            for one in self._open:
                with suppress(OSError):  # it has ended meanwhile
                    one.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        who = connection.makefile("rb").readline().decode().strip()
        night = who.split()[0] if who else ""
        with self._lock:
            if self._at_it:
                self.collisions.append(f"{who} while {self._at_it}")
            self._at_it.add(who)
            self._open.add(connection)
        try:
            # A controller that is killed takes its workers along: its end of the connection goes.
            pieces = 20
            size = len(CONSOLE) // pieces
            for piece in range(pieces):
                connection.sendall(CONSOLE[piece * size : (piece + 1) * size])
                time.sleep(self.cycle_s / pieces * random.uniform(0.5, 1.5))
            connection.sendall(PROOF)
            self.served.append(f"{night} {who}")
        except OSError:
            pass
        finally:
            with self._lock:
                self._at_it.discard(who)
                self._open.discard(connection)

    def resources(self) -> dict[str, Any]:
        """What an exporter offers of it."""
        return {
            "NetworkSerialPort": {
                "host": "127.0.0.1",
                "port": self.port,
                "speed": 115200,
                "protocol": "rfc2217",
            }
        }
