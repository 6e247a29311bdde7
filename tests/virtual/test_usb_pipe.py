"""The endpoint model keeps to USB 2.0, 5.8.3: when a bulk transfer ends."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.virtual.usb_pipe import BulkPipe, OverflowedError, UnpluggedError

NEVER = threading.Event()


def take(endpoint: BulkPipe, size: int) -> bytes:
    return b"".join(endpoint.take(size, time.monotonic(), NEVER))


def test_a_short_packet_ends_a_transfer() -> None:
    endpoint = BulkPipe(512)
    endpoint.put(b"a" * 700)
    endpoint.put(b"b" * 10)
    assert take(endpoint, 4096) == b"a" * 700
    assert take(endpoint, 4096) == b"b" * 10


def test_whole_packets_without_a_zlp_run_into_the_next_transfer() -> None:
    endpoint = BulkPipe(512)
    endpoint.put(b"a" * 1024)
    with pytest.raises(TimeoutError):
        take(endpoint, 4096)
    endpoint.put(b"b" * 16)
    assert take(endpoint, 4096) == b"a" * 1024 + b"b" * 16


def test_a_zlp_ends_a_transfer_of_whole_packets() -> None:
    endpoint = BulkPipe(512)
    endpoint.put(b"a" * 1024, zlp=True)
    assert take(endpoint, 4096) == b"a" * 1024


def test_a_zlp_after_a_transfer_that_was_full_opens_the_next_one() -> None:
    endpoint = BulkPipe(512)
    endpoint.put(b"a" * 1024, zlp=True)
    endpoint.put(b"b")
    assert take(endpoint, 1024) == b"a" * 1024
    assert take(endpoint, 64) == b""
    assert take(endpoint, 64) == b"b"


def test_asking_for_less_than_a_packet_is_babble() -> None:
    endpoint = BulkPipe(512)
    endpoint.put(b"a" * 512)
    with pytest.raises(OverflowedError):
        take(endpoint, 100)


def test_unplugging_ends_every_wait() -> None:
    endpoint = BulkPipe(512)
    threading.Timer(0.05, endpoint.unplug).start()
    with pytest.raises(UnpluggedError):
        endpoint.take(64, time.monotonic() + 10, NEVER)
    with pytest.raises(UnpluggedError):
        endpoint.put(b"a")


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.booleans()), max_size=8),
    st.lists(st.sampled_from([64, 128, 512, 1024, 4096]), min_size=1, max_size=30),
)
def test_whatever_the_reads_no_byte_is_lost_or_doubled(
    transfers: list[tuple[int, bool]], reads: list[int]
) -> None:
    endpoint = BulkPipe(64)
    sent = b""
    for number, (size, zlp) in enumerate(transfers):
        data = bytes((number + at) % 251 for at in range(size))
        sent += data
        endpoint.put(data, zlp=zlp)
    endpoint.put(b"end")
    sent += b"end"
    got = b""
    for size in [*reads, *[4096] * 40]:
        try:
            got += take(endpoint, size)
        except TimeoutError:
            break
    assert got == sent
