from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from farm.bench.recording import printable
from farm.bench.stream import BACKLOG_LIMIT_BYTES, ConsoleStream
from farm.errors import BenchError, DeadlineError


def test_the_text_since_the_mark_is_returned_with_the_match() -> None:
    stream = ConsoleStream()
    stream.feed(b"old\n")
    stream.mark()
    stream.feed(b"one\r\ntwo 42 three")
    seen = stream.wait_for([r"never", r"two ([0-9]+)"], 1, "two")
    assert (seen.index, seen.groups, seen.text) == (1, (b"42",), "one\ntwo 42")
    assert stream.wait_for("three", 1, "three").before == b" "


def test_the_earliest_match_wins_over_the_first_pattern() -> None:
    stream = ConsoleStream()
    stream.feed(b"b then a")
    assert stream.wait_for(["a", "b"], 1, "either").index == 1
    assert stream.wait_for(["a", "b"], 1, "either").index == 0


def test_a_match_may_arrive_in_single_bytes() -> None:
    stream = ConsoleStream()

    def feed() -> None:
        for one in b"xx prompt# ":
            stream.feed(bytes([one]))

    got = threading.Thread(target=feed, daemon=True)
    got.start()
    assert stream.wait_for("prompt# ", 5, "the prompt").before == b"xx "
    got.join()


def test_the_time_of_a_match_is_that_of_its_bytes() -> None:
    stream = ConsoleStream()
    stream.feed(b"first")
    after_first = time.monotonic()
    threading.Event().wait(0.02)
    stream.feed(b" second")
    assert stream.wait_for("first", 1, "first").at <= after_first
    assert stream.wait_for("second", 1, "second").at > after_first


def test_a_deadline_names_what_was_waited_for_and_the_last_line() -> None:
    stream = ConsoleStream()
    stream.feed(b"working\r\nstill \x1b[31mworking\r\n\r\n")
    with pytest.raises(DeadlineError) as caught:
        stream.wait_for("never", 0.05, "the prompt")
    assert "board: the prompt did not happen within 0.05 s" in str(caught.value)
    assert r"still \\x1b[31mworking" in caught.value.message


def test_silence_is_called_silence() -> None:
    with pytest.raises(DeadlineError, match="Not one byte"):
        ConsoleStream().wait_for("x", 0.05, "a word")


def test_a_stall_ends_the_wait_long_before_the_deadline() -> None:
    stream = ConsoleStream()
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        stream.wait_for("x", 60, "a word", stall_s=0.1)
    assert time.monotonic() - began < 5


def test_a_lost_port_ends_a_wait_at_once_but_not_before_what_has_arrived() -> None:
    stream = ConsoleStream()
    stream.feed(b"the end")
    threading.Timer(0.1, stream.lose, ["unplugged"]).start()
    began = time.monotonic()
    with pytest.raises(BenchError, match="unplugged") as caught:
        stream.wait_for("never", 60, "the prompt")
    assert caught.value.part == "serial"
    assert time.monotonic() - began < 5
    assert stream.wait_for("the end", 1, "the end").matched == b"the end"


def test_searching_is_linear_in_the_bytes_received() -> None:
    def seconds(chunks: int) -> float:
        stream = ConsoleStream()
        done = threading.Event()

        def feed() -> None:
            for _ in range(chunks):
                stream.feed(b"x" * 4096)
            stream.feed(b"END")
            done.set()

        threading.Thread(target=feed, daemon=True).start()
        began = time.monotonic()
        stream.wait_for([r"END", r"other [0-9]+"], 120, "the end")
        return time.monotonic() - began

    small = max(seconds(256), 0.01)
    assert seconds(4096) < 16 * small * 8


def test_nobody_waiting_costs_bounded_memory() -> None:
    stream = ConsoleStream()
    for _ in range(BACKLOG_LIMIT_BYTES // (1 << 22) + 4):
        stream.feed(bytes(1 << 22))
    assert len(stream._buffer) <= BACKLOG_LIMIT_BYTES
    stream.feed(b"here")
    assert stream.wait_for("here", 5, "it").matched == b"here"


def test_every_byte_is_recorded_and_every_line_has_a_time(tmp_path: Path) -> None:
    stream = ConsoleStream()
    one, two = tmp_path / "one", tmp_path / "two"
    stream.record_to(one)
    stream.feed(b"a\xff\x00b\r\nhalf")
    stream.record_to(two)
    stream.feed(b" line\n\x1b]0;title\x07\n")
    stream.record_to(None)
    stream.feed(b"unrecorded")
    assert (one / "console.raw").read_bytes() == b"a\xff\x00b\r\nhalf"
    assert (two / "console.raw").read_bytes() == b" line\n\x1b]0;title\x07\n"
    log = (one / "console.log").read_text() + (two / "console.log").read_text()
    stamps = [
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in log.splitlines()
    ]
    assert len(stamps) == 4
    assert all(stamps)
    assert "\x1b" not in log
    assert r"a\xff\x00b" in log


def test_a_full_disk_is_the_disk_s_fault(tmp_path: Path) -> None:
    stream = ConsoleStream()
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError) as caught:
        stream.record_to(tmp_path / "file" / "below")
    assert caught.value.part == "disk"


def test_control_characters_are_made_visible() -> None:
    assert printable("\x1b[2J\x9bgrün\r\n".encode()) == r"\x1b[2J\x9bgrün"
