from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from farm.bench import inject as inject_module
from farm.bench import kept_log as kept_log_module
from farm.bench.environment import Bench
from farm.bench.inject import (
    Injection,
    inject,
    is_slow,
    patient,
    trigger_command,
    watch_panic,
    watch_reset,
)
from farm.bench.manifest import AfterPanic
from farm.bench.options import Deadlines
from farm.bench.pstorefs import BoardFile, Listing
from farm.errors import BenchError, DeadlineError
from farm.model import PanicAccount
from farm.scenarios import Scenario, scenario_named

BREAK = scenario_named("break-c")
DEADLINES = Deadlines(boot=10, panic=0.1, reset=5)


def listed(names: set[str]) -> Listing:
    return Listing(tuple(BoardFile(name, 1, "0" * 64) for name in sorted(names)), (), True)


@pytest.fixture(autouse=True)
def _after(monkeypatch: pytest.MonkeyPatch) -> None:
    # The scripts of after_panic would read this computer's own pstore.
    answer = AfterPanic("boot-2", "6.12.1", "ab", listed({"panicdump-ramoops-0"}), "")
    monkeypatch.setattr(inject_module, "after_panic", lambda shell, deadline_s: answer)


def pulled(bench: Bench) -> Injection:
    bench.console.mark()
    return Injection("by hand", time.monotonic(), None, bench.shell)


def watched(
    bench: Bench, injection: Injection, scenario: Scenario, deadlines: Deadlines
) -> PanicAccount:
    panic = watch_panic(injection, scenario, bench.console, deadlines)
    return watch_reset(panic, injection, bench.console, bench.shell, deadlines)[0]


def quick(scenario: Scenario, within_s: float = 0.3) -> Scenario:
    return scenario.model_copy(update={"panic_within_s": within_s})


def test_break_and_c_panic_a_board_without_its_shell(board: Any, shell_bench: Bench) -> None:
    shell_bench.console.write(b"read x < /dev/zero\n")
    injection = inject(BREAK, shell_bench.console, None)
    assert injection.trigger == "serial BREAK, then c"
    assert injection.memory_mark is None
    account = watched(shell_bench, injection, BREAK, DEADLINES)
    assert board.breaks == 1
    assert account.signature_found
    assert account.panic_line is not None
    assert account.panic_line.endswith("Kernel panic - not syncing: sysrq triggered crash")
    assert any("Rebooting in 1 seconds" in line for line in account.panic_console_lines)
    assert account.panic_to_reset_s is not None
    assert account.panic_to_reset_s >= 0
    assert account.reset_to_shell_s is not None
    assert (account.reset, account.boot_id_after) == ("warm", "boot-2")
    assert (account.release_after, account.build_id_after) == ("6.12.1", "ab")
    assert shell_bench.shell.run_script("echo back", 10) == "back"


def test_a_panic_of_another_kind_lacks_the_signature(board: Any, shell_bench: Bench) -> None:
    injection = pulled(shell_bench)
    board.panic()
    other = BREAK.model_copy(update={"signature": "Kernel panic - not syncing: dumptest"})
    account = watched(shell_bench, injection, other, DEADLINES)
    assert account.panic_line is not None
    assert not account.signature_found


@pytest.mark.parametrize(
    ("files", "mark", "pmsg", "reset"),
    [
        (set(), "farm-1", "farm-1\n", "warm"),
        ({"console-ramoops-0"}, "farm-1", "", "warm"),
        (set(), "farm-1", "", "cold"),
        (set(), None, "", "unknown"),
    ],
)
def test_warm_and_cold_are_told_by_what_memory_holds(
    board: Any,
    shell_bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    files: set[str],
    mark: str | None,
    pmsg: str,
    reset: str,
) -> None:
    answer = AfterPanic(None, "6.12.1", None, listed(files), pmsg)
    monkeypatch.setattr(inject_module, "after_panic", lambda shell, deadline_s: answer)
    shell_bench.console.mark()
    injection = Injection("by hand", time.monotonic(), mark)
    board.panic()
    account = watched(shell_bench, injection, BREAK, DEADLINES)
    assert account.reset == reset


def test_a_board_that_lives_on_has_not_panicked(shell_bench: Bench) -> None:
    account = watched(shell_bench, pulled(shell_bench), quick(BREAK), DEADLINES)
    assert (account.panic_line, account.reset, account.signature_found) == (None, "none", False)


def test_a_board_that_answers_nothing_is_hung(
    board: Any, shell_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inject_module, "_PROBE_DEADLINE_S", 0.2)
    injection = pulled(shell_bench)
    board.dies_silently = True
    with pytest.raises(DeadlineError, match="hung") as caught:
        watched(shell_bench, injection, quick(BREAK), DEADLINES)
    assert caught.value.part == "board"


def test_a_board_that_panics_and_never_comes_back(board: Any, shell_bench: Bench) -> None:
    injection = pulled(shell_bench)
    board.say(b"[  1.0] Kernel panic - not syncing: sysrq triggered crash\r\n")
    with pytest.raises(DeadlineError, match="the reset after the panic") as caught:
        watched(shell_bench, injection, BREAK, Deadlines(boot=1, reset=0.2))
    assert caught.value.part == "board"
    assert "sysrq triggered crash" in caught.value.message


def test_a_boot_loop_is_called_one(board: Any, shell_bench: Bench) -> None:
    injection = pulled(shell_bench)
    board._stop_shell()
    text = b"[  1.0] Kernel panic - not syncing: no init\r\n[0.0] Booting Linux on physical CPU\r\n"
    board.say(text + text)
    with pytest.raises(BenchError, match="panicked again while it booted"):
        watched(shell_bench, injection, BREAK, DEADLINES)


def test_a_reset_without_a_word_is_no_panic_line(board: Any, shell_bench: Bench) -> None:
    injection = pulled(shell_bench)
    board._stop_shell()
    board._boot()
    account = watched(shell_bench, injection, BREAK, DEADLINES)
    assert (account.panic_line, account.panic_to_reset_s) == (None, None)
    assert account.reset == "warm"


def test_a_serial_port_lost_in_the_panic_is_the_bench_s_fault(
    board: Any, shell_bench: Bench
) -> None:
    injection = pulled(shell_bench)
    threading.Timer(0.1, board.hang_up).start()
    began = time.monotonic()
    with pytest.raises(BenchError) as caught:
        watched(shell_bench, injection, quick(BREAK, 60), DEADLINES)
    assert caught.value.part == "serial"
    assert time.monotonic() - began < 5


def test_a_trigger_that_needs_a_shell(bench: Bench) -> None:
    with pytest.raises(BenchError, match="needs a shell") as caught:
        inject(scenario_named("sysrq-c"), bench.console, None)
    assert caught.value.part == "shell"


LOG = """\
[    1.0] older words, kernel BUG at drivers/misc/lkdtm/bugs.c:105!
[    2.0] {mark}
[    2.1] kernel BUG at drivers/misc/lkdtm/bugs.c:105!
[    2.2] Kernel panic - not syncing: Oops - BUG: Fatal exception
"""
BUG = scenario_named("lkdtm-bug")


@pytest.mark.parametrize(("mark", "found"), [("panic-farm-1", True), ("panic-farm-2", False)])
def test_words_that_the_line_lost_are_in_the_log_that_pstore_kept(
    board: Any,
    shell_bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mark: str,
    found: bool,
) -> None:
    (tmp_path / "dmesg-ramoops-0").write_text(LOG.format(mark="panic-farm-1"))
    monkeypatch.setattr(kept_log_module, "FOLDER", str(tmp_path))
    answer = AfterPanic("boot-2", "6.12.1", "ab", listed({"dmesg-ramoops-0"}), "")
    monkeypatch.setattr(inject_module, "after_panic", lambda shell, deadline_s: answer)
    injection = dataclasses.replace(pulled(shell_bench), log_mark=mark)
    # The line that says which panic it is has not come over the wire.
    board.panic()
    account = watched(shell_bench, injection, BUG, DEADLINES)
    assert (account.signature_found, account.from_kept_log) == (found, found)
    if found:
        assert account.panic_line is not None
        assert account.panic_line.endswith("Oops - BUG: Fatal exception")


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("sysrq-c", "echo c > /proc/sysrq-trigger"),
        ("lkdtm-bug", "echo BUG > /sys/kernel/debug/provoke-crash/DIRECT"),
        ("hardirq", "echo PANIC > /sys/kernel/debug/provoke-crash/INT_HW_IRQ_EN"),
        ("cpu-1", "taskset 2 sh -c 'echo c > /proc/sysrq-trigger'"),
        ("orderly-reboot", "/bin/reboot"),
        ("early-no-init", "/bin/reboot"),
    ],
)
def test_each_trigger_is_one_command(name: str, typed: str) -> None:
    assert trigger_command(scenario_named(name), "/bin/reboot") == typed


def test_a_board_that_still_says_new_things_is_slow() -> None:
    assert is_slow(["[ 1.0] clk: ready", "[ 1.4] uart: up", "[ 2.0] init"])
    assert not is_slow([])
    assert not is_slow(["", "[ 1.0] rcu: stall", "[ 2.0] rcu: stall", "[ 31.5] rcu: stall"])


def chatter(board: Any, lines: int, period_s: float) -> threading.Thread:
    def talk() -> None:
        words = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")
        for number in range(lines):
            board.say(f"starting {words[number % len(words)]}\n".encode())
            time.sleep(period_s)
        board.say(b"here at last\n")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    return thread


def test_a_slow_board_gets_more_time(board: Any, shell_bench: Bench) -> None:
    shell_bench.console.mark()
    thread = chatter(board, 14, 0.1)
    assert patient(shell_bench.console, ["here at last"], 0.8, "the end").index == 0
    thread.join()


def test_a_stuck_board_gets_no_more_time(board: Any, shell_bench: Bench) -> None:
    shell_bench.console.mark()
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        patient(shell_bench.console, ["here at last"], 1.0, "the end")
    assert time.monotonic() - began < 2.5


def test_a_slow_board_does_not_get_time_without_end(board: Any, shell_bench: Bench) -> None:
    shell_bench.console.mark()
    began = time.monotonic()
    thread = chatter(board, 60, 0.1)
    with pytest.raises(DeadlineError):
        patient(shell_bench.console, ["never"], 0.8, "the end")
    assert 2.0 < time.monotonic() - began < 5.0
    thread.join()
