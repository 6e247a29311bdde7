from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from labgrid.protocol import CommandProtocol

from farm.bench.environment import Bench
from farm.bench.shell import safe_word
from farm.errors import BenchError, DeadlineError, UsageError


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("echo hello", "hello"),
        ("printf 'two\\nlines\\n'", "two\nlines"),
        ("", ""),
        ("echo 'it'\"'\"'s'; echo \"$((6*7))\" '$HOME' `echo x`", "it's\n42 $HOME x"),
        ("echo err >&2", "err"),
        ("cat <<END\nheredoc\nEND", "heredoc"),
        ("for i in 1 2 3; do\n  echo $i\ndone", "1\n2\n3"),
        ("printf %s '% \\n \\\\ é'", "% \\n \\\\ é"),
    ],
)
def test_scripts_give_their_output(shell_bench: Bench, script: str, output: str) -> None:
    assert shell_bench.shell.run_script(script, 10) == output


def test_the_status_is_told(shell_bench: Bench) -> None:
    assert shell_bench.shell.execute("echo x; exit 7", 10) == ("x", 7)
    with pytest.raises(BenchError, match=r"the thing failed .* status 3: oops") as caught:
        shell_bench.shell.run_script("echo oops; exit 3", 10, what="the thing")
    assert caught.value.part == "shell"


def test_a_board_s_words_in_an_error_do_nothing_to_a_terminal(shell_bench: Bench) -> None:
    with pytest.raises(BenchError) as caught:
        shell_bench.shell.run_script(r"printf '\033[2J\033]0;owned\007'; exit 3", 10)
    assert r"\x1b[2J\x1b]0;owned\x07" in caught.value.message
    assert str(caught.value).isprintable()


def test_a_line_longer_than_a_terminal_takes(shell_bench: Bench) -> None:
    text = "x" * 9000
    assert shell_bench.shell.run_script(f"echo {text}", 10) == text


def test_a_long_script_of_short_lines(shell_bench: Bench) -> None:
    script = "\n".join(f"echo line {number}" for number in range(1500))
    assert shell_bench.shell.run_script(script, 30).splitlines()[-1] == "line 1499"


def test_output_of_a_megabyte(shell_bench: Bench) -> None:
    out = shell_bench.shell.run_script("yes 0123456789abcdef | head -c 500000", 60)
    assert len(out) == 500000


def test_a_kernel_message_in_the_output_is_noticed_and_it_is_asked_again(
    board: Any, shell_bench: Bench
) -> None:
    hits: list[int] = []

    def corrupt(data: bytes) -> bytes:
        if b"precious" in data and not hits:
            hits.append(1)
            return data.replace(b"precious", b"pre[   1.0] usb 1-1: new device\r\ncious")
        return data

    board.corrupt = corrupt
    assert shell_bench.shell.run_script("echo precious", 10) == "precious"
    assert hits
    hits.clear()
    with pytest.raises(BenchError, match="damaged"):
        shell_bench.shell.execute("echo precious", 10, idempotent=False)


def test_a_kernel_message_in_the_end_mark_does_no_harm(board: Any, shell_bench: Bench) -> None:
    def corrupt(data: bytes) -> bytes:
        at = data.find(b"+")
        if at < 0:
            return data
        board.corrupt = lambda rest: rest
        return data[:at] + b"[  9.9] link up\r\n" + data[at:]

    board.corrupt = corrupt
    assert shell_bench.shell.run_script("echo precious", 10) == "precious"
    assert board.corrupt is not corrupt


def test_a_script_that_never_ends_names_its_deadline(shell_bench: Bench) -> None:
    with pytest.raises(DeadlineError, match="the end of a nap") as caught:
        shell_bench.shell.run_script("echo yawn; read x < /dev/zero", 0.5, what="a nap")
    assert caught.value.part == "board"
    assert shell_bench.shell.answers(10)
    assert shell_bench.shell.run_script("echo awake", 10) == "awake"


def test_a_half_typed_line_does_not_spoil_the_next_script(shell_bench: Bench) -> None:
    shell_bench.console.write(b"echo 'never closed")
    assert shell_bench.shell.answers(10)
    assert shell_bench.shell.run_script("echo fine", 10) == "fine"


def test_a_panic_in_the_middle_of_a_script_is_told_at_once(board: Any, shell_bench: Bench) -> None:
    threading.Timer(0.3, board.panic).start()
    began = time.monotonic()
    with pytest.raises(BenchError, match="panicked while it ran"):
        shell_bench.shell.run_script("read x < /dev/zero", 60)
    assert time.monotonic() - began < 10


def test_it_serves_labgrid_s_protocol(shell_bench: Bench) -> None:
    command = shell_bench.target.get_driver(CommandProtocol)
    assert command.run("echo a; echo b; exit 2") == (["a", "b"], [], 2)
    assert command.run_check("true") == []


def test_words_that_a_terminal_would_act_on_are_refused() -> None:
    assert safe_word("a b") == "'a b'"
    with pytest.raises(UsageError):
        safe_word("a\x03b")


def test_an_end_that_the_line_has_lost_is_no_board_that_hangs(
    shell_bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    console = shell_bench.console
    wait_for = console.wait_for
    lost: list[str] = []

    def losing(patterns: Any, deadline_s: float, what: str, **more: Any) -> Any:
        seen = wait_for(patterns, deadline_s, what, **more)
        if what.startswith("the end of") and not lost:
            lost.append(what)
            raise DeadlineError(what, part="board", deadline_s=deadline_s)
        return seen

    monkeypatch.setattr(console, "wait_for", losing)
    assert shell_bench.shell.run_script("echo here", 5, what="a question") == "here"
    assert "the output of a question arrived damaged" in caplog.text


def test_an_end_that_comes_just_after_the_deadline_is_taken(
    shell_bench: Bench, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    slow = f"sleep 0.6; echo once >> {done}; echo here"
    assert shell_bench.shell.run_script(slow, 0.3, what="a slow one") == "here"
    assert done.read_text() == "once\n"
    assert shell_bench.shell.run_script("echo next", 5) == "next"
