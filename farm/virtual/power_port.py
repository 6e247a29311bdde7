"""The board's power port, as labgrid's NetworkPowerPort model ``simplerest`` speaks to it.

    GET /power/0      "1" or "0"
    GET /power/0/1    switch on;  GET /power/0/0  switch off

Outlet 1 holds down the key that stops in the bootloader, outlet 2 the strap that stops in the boot
ROM, outlet 3 the PMIC's power key: what relays on a bench do.

Source: labgrid 26.0.1, labgrid/driver/power/simplerest.py. HTTP/1.1 as of RFC 9112, one request
per connection; left out: bodies, keep-alive, everything but GET.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

from farm.errors import FarmError

_REQUEST_DEADLINE_S = 10.0
HEAD_LIMIT_BYTES = 16 << 10
_PATH = re.compile(r"/power/(?P<outlet>[0-9]+)(?:/(?P<value>[^/]*))?/?")


class Relay(Protocol):
    """What the power port switches."""

    def relay_is_on(self) -> bool:
        """What the port reports."""

    async def switch_relay(self, on: bool) -> None:
        """Switch; returns when it has happened."""


_Answer = tuple[HTTPStatus, str]


async def _answer(relays: tuple[Relay, ...], request_line: str) -> _Answer:
    words = request_line.split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return HTTPStatus.BAD_REQUEST, "this is not an HTTP/1 request\n"
    method, path, _ = words
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED, "only GET is understood here\n"
    match = _PATH.fullmatch(path)
    if match is None:
        return HTTPStatus.NOT_FOUND, "use /power/0, /power/0/1 or /power/0/0\n"
    outlet = int(match["outlet"])
    if outlet >= len(relays):
        last = len(relays) - 1
        return HTTPStatus.NOT_FOUND, f"there is no outlet {outlet}, the last one is {last}\n"
    relay = relays[outlet]
    value = match["value"]
    if value:
        if value not in ("0", "1"):
            return HTTPStatus.BAD_REQUEST, f"{value!r} is neither 0 nor 1\n"
        try:
            await relay.switch_relay(value == "1")
        except FarmError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"{error.message}\n"
    return HTTPStatus.OK, "1" if relay.relay_is_on() else "0"


def power_handler(
    *relays: Relay,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A connection handler for asyncio.start_server; ``relays`` by their outlet's number."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(_REQUEST_DEADLINE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, TimeoutError):
                return
            except asyncio.LimitOverrunError:
                status, text = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers\n"
            else:
                line = head.split(b"\r\n", 1)[0].decode("latin-1")
                status, text = await _answer(relays, line)
            allow = "Allow: GET\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
            writer.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(text)}\r\n{allow}Connection: close\r\n\r\n{text}".encode()
            )
            await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    return handle
