from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import requests
from labgrid.driver.power import simplerest

from farm.errors import BenchError
from farm.virtual.power_port import HEAD_LIMIT_BYTES, power_handler


class FakeRelay:
    def __init__(self) -> None:
        self.on = False
        self.broken = False

    def relay_is_on(self) -> bool:
        return self.on

    async def switch_relay(self, on: bool) -> None:
        if self.broken:
            raise BenchError("QEMU did not start", part="board")
        self.on = on


def served(relay: FakeRelay, visit: Callable[[int], None]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(
            power_handler(relay), "127.0.0.1", 0, limit=HEAD_LIMIT_BYTES
        )
        async with server, asyncio.timeout(20):
            await asyncio.to_thread(visit, server.sockets[0].getsockname()[1])

    asyncio.run(run())


def test_labgrid_switches_and_reads() -> None:
    relay = FakeRelay()

    def visit(port: int) -> None:
        host = f"http://localhost:{port}/power/{{index}}/{{value}}"
        assert not simplerest.power_get(host, None, 0)
        simplerest.power_set(host, None, 0, True)
        assert relay.on
        assert simplerest.power_get(host, None, "0")
        simplerest.power_set(host, None, 0, False)
        assert not relay.on
        with pytest.raises(requests.HTTPError, match="404"):
            simplerest.power_set(host, None, 1, True)
        relay.broken = True
        with pytest.raises(requests.HTTPError, match="503"):
            simplerest.power_set(host, None, 0, True)

    served(relay, visit)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/power/0/2", 400),
        ("GET", "/power/0/on", 400),
        ("GET", "/power", 404),
        ("GET", "/power/0/1/1", 404),
        ("POST", "/power/0/1", 405),
        ("GET", "/power/0/" + "1" * HEAD_LIMIT_BYTES, 431),
    ],
)
def test_what_it_does_not_know_switches_nothing(method: str, path: str, status: int) -> None:
    relay = FakeRelay()

    def visit(port: int) -> None:
        answer = requests.request(method, f"http://localhost:{port}{path}", timeout=5)
        assert answer.status_code == status

    served(relay, visit)
    assert not relay.on
