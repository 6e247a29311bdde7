"""The live page over HTTP, to this computer alone.

Only asked for, only on the loopback interface, only GET of the two pages; nothing can be changed
through it. A request that names another host is refused: a page of the web could otherwise have a
browser read it here by a name that it makes point to 127.0.0.1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from farm.errors import BenchError, FarmError

__all__ = ["serving"]

LOOPBACK = "127.0.0.1"
_NAMES = frozenset({"127.0.0.1", "localhost"})
_PATHS = {"/": True, "/still": False}
_DEADLINE_S = 10.0


def _handler(make: Callable[[bool], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _DEADLINE_S
        server_version, sys_version = "farm", ""

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in _NAMES:
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            elif self.path not in _PATHS:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._answer(_PATHS[self.path])

        def _answer(self, refreshing: bool) -> None:
            try:
                text = make(refreshing)
            except FarmError as error:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=error.message)
                return
            data = text.encode("utf-8", "backslashreplace")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: who looks is nobody's business."""

    return Handler


@contextmanager
def serving(port: int, make: Callable[[bool], str]) -> Iterator[str]:
    """Serve the pages while a block runs; gives the address.

    ``make`` writes the page that loads itself again, or the other one. Port 0 takes a free one.
    Raises BenchError when the port cannot be had.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), _handler(make))
    except OSError as error:
        raise BenchError(
            f"cannot listen on {LOOPBACK}:{port}: {error.strerror}",
            part="controller",
            next_step="Name another port: --serve PORT.",
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="live page", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
