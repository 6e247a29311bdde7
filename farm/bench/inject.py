"""Crashing a board on purpose, and following what it does until its next shell."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from farm.bench.console import RecordedConsole
from farm.bench.kept_log import kept_log
from farm.bench.manifest import LKDTM, MOUNT_DEBUGFS, STATE_SCRIPT, after_panic, boot_id_of
from farm.bench.options import Deadlines
from farm.bench.pstorefs import Listing
from farm.bench.recording import printable
from farm.bench.shell import BoardShell
from farm.bench.stream import Seen
from farm.errors import BenchError, DeadlineError
from farm.model import PanicAccount
from farm.scenarios import Scenario, Trigger

PANIC = re.compile(rb"(?:\[ *[0-9]+\.[0-9]+\] )?Kernel panic - not syncing: [^\r\n]*[\r\n]")
# The kernel's first words, whatever the boot loader says before them.
KERNEL = re.compile(rb"Linux version [0-9]")
BOOT = re.compile(rb"(?:\[ *0\.0+\] )?(?:Booting Linux on physical CPU|Linux version [0-9])")

_LINES_BEFORE = 20
_LINES_AFTER = 60
_PLANT_DEADLINE_S = 10.0
_PROBE_DEADLINE_S = 3.0
_TRIGGER_TEXT = {
    Trigger.SYSRQ_SHELL: "{} written to /proc/sysrq-trigger",
    Trigger.SERIAL_BREAK: "serial BREAK, then {}",
    Trigger.LKDTM: "LKDTM {}",
    Trigger.COMMAND: "the command {}",
    Trigger.BOOT: "booting with {}",
}
_SETTLE_S = 0.3
_KEYSTROKE_S = 0.15
_EXTENSIONS = 2
_NEWS_OF_A_SLOW_BOARD = 3


@dataclass(frozen=True)
class Injection:
    """A trigger that was pulled: how, when (monotonic), and what was left in memory before.

    ``memory_mark`` is text that only a region that kept its power can still hold; None when the
    kernel has no /dev/pmsg0. ``log_mark`` was written to the kernel's log. ``shell`` is asked
    whether the board lives when no panic follows.
    """

    trigger: str
    at: float
    memory_mark: str | None
    shell: BoardShell | None = None
    log_mark: str | None = None


@dataclass(frozen=True)
class Panic:
    """What the console said from the trigger to the panic line; ``account`` is what is known.

    ``line`` is None when the board reset without a word of panic, ``boot`` then being the first
    word of the boot after; both are None when it did not panic and lives on.
    ``gone`` is set for a board that resets without a panic and will stop in crash mode.
    """

    account: PanicAccount
    scenario: Scenario
    line: Seen | None
    boot: Seen | None
    gone: bool = False


def trigger_command(scenario: Scenario, reboot: str) -> str:
    """What the board's shell is told to do; ``reboot`` is its command for an orderly one."""
    if scenario.trigger is Trigger.LKDTM:
        folder = LKDTM.rpartition("/")[0]
        command = "; ".join(f"echo {kind} > {folder}/{point}" for point, kind in scenario.lkdtm)
    elif scenario.trigger is Trigger.SYSRQ_SHELL:
        command = f"echo {scenario.argument} > /proc/sysrq-trigger"
    elif scenario.trigger is Trigger.BOOT:
        command = reboot
    else:
        command = scenario.argument.replace("{reboot}", reboot)
    if scenario.cpu is not None:
        command = f"taskset {1 << scenario.cpu:x} sh -c {shlex.quote(command)}"
    return command


def inject(
    scenario: Scenario,
    console: RecordedConsole,
    shell: BoardShell | None,
    reboot: str = "reboot",
    armed_boot: str | None = None,
) -> Injection:
    """Pull the trigger of ``scenario``; returns at once after it.

    With a ``shell``, the kernel's messages are made visible and a mark is left in pmsg first;
    only a serial BREAK can do without. ``armed_boot`` is the boot id of the manifest: what another
    boot would leave could not be told from what the kernel did wrong. Raises BenchError,
    UsageError; BenchError(part="board") when the board has booted since it was armed.
    """
    mark = log_mark = None
    if shell is not None:
        mark = f"panic-farm-{secrets.token_hex(8)}"
        # Level 8 shows everything: the reason of an oops is printed before the kernel
        # raises the level by itself.
        said = shell.run_script(
            f"{MOUNT_DEBUGFS if armed_boot else ''}"
            f"[ -c /dev/pmsg0 ] && echo {mark} > /dev/pmsg0 && echo planted\n"
            f"[ -c /dev/kmsg ] && echo {mark} > /dev/kmsg\n"
            "echo 8 > /proc/sys/kernel/printk\n"
            f"{STATE_SCRIPT if armed_boot else ''}",
            _PLANT_DEADLINE_S,
            what="preparing the panic",
        )
        shell.fresh_boot()
        if armed_boot is not None and boot_id_of(said) != armed_boot:
            raise BenchError(
                "the board was reset, or lost its power, after it had been armed",
                part="board",
                next_step="Check its power; console.log shows when it booted.",
            )
        log_mark = mark
        if "planted" not in said:
            mark = None
    if scenario.dead_shell:
        # Nothing that is typed reaches a shell any more, not even Ctrl-C.
        console.write(b"stty -isig; exec sleep 1000000\n")
        console.stream.wait_quiet(_SETTLE_S)
    console.mark()
    argument = scenario.argument
    if scenario.trigger is Trigger.SERIAL_BREAK:
        console.send_break()
        console.write(argument.encode())
    elif shell is None:
        raise BenchError(f"scenario {scenario.name} needs a shell", part="shell")
    else:
        console.write(f"{trigger_command(scenario, reboot)}\n".encode())
        began = time.monotonic()
        for _ in range(scenario.keystrokes):
            # Far enough apart for the board to see one at a time.
            console.stream.wait_quiet(_KEYSTROKE_S)
            if any("Kernel panic" in line for line in console.stream.lines_since(began)):
                break
            console.write(b"\n")
    if scenario.boot is not None and scenario.trigger is Trigger.BOOT:
        argument = f"{scenario.boot.cmdline!r}"
    return Injection(
        trigger=_TRIGGER_TEXT[scenario.trigger].format(argument),
        at=time.monotonic(),
        memory_mark=mark,
        shell=shell,
        log_mark=log_mark,
    )


def _lines_around(line: Seen | None, after: bytes) -> tuple[str, ...]:
    def lines(data: bytes) -> list[str]:
        return [text for line in data.split(b"\n") if (text := printable(line))]

    before, matched = (line.before, line.matched) if line else (b"", b"")
    return (
        *lines(before)[-_LINES_BEFORE:],
        *lines(matched),
        *lines(after)[:_LINES_AFTER],
    )


def _has_signature(scenario: Scenario, line: Seen | None, after: bytes) -> bool:
    shown = (line.before + line.matched if line else b"") + after
    text = shown.decode("utf-8", errors="backslashreplace").replace("\r\n", "\n")
    return re.search(scenario.signature, text) is not None


def _check_alive(error: DeadlineError, injection: Injection, console: RecordedConsole) -> None:
    """Return when the board lives on; raise for one that is dead."""
    last = console.last_line()
    if injection.shell is None or not injection.shell.answers(_PROBE_DEADLINE_S):
        raise DeadlineError(
            "hung: the panic",
            part="board",
            deadline_s=error.deadline_s,
            last=last,
            next_step="Switch its power off and on; look at console.log for its last words.",
        ) from error


def patient(
    console: RecordedConsole,
    patterns: Sequence[str | re.Pattern[bytes]],
    deadline_s: float,
    what: str,
) -> Seen:
    """Wait as ``console.wait_for`` does, but longer for a board that is slow and not stuck.

    At the deadline a board that has said something new since half of it is slow: it gets as much
    again, twice at most. One that has fallen silent, or repeats one line for ever, is stuck.
    """
    for extension in range(_EXTENSIONS + 1):
        began = time.monotonic()
        try:
            return console.wait_for(patterns, deadline_s, what)
        except DeadlineError:
            said = console.stream.lines_since(began + deadline_s / 2)
            if extension == _EXTENSIONS or not is_slow(said):
                raise
    raise AssertionError


def is_slow(said: Sequence[str]) -> bool:
    """Whether a board that said these lines of late gets on, slowly.

    Time stamps and numbers aside, lines that are all the same are those of a stuck board.
    """
    kinds = {re.sub(r"[0-9a-fx.]+", "#", line) for line in said if line.strip()}
    return len(kinds) >= _NEWS_OF_A_SLOW_BOARD


def watch_panic(
    injection: Injection, scenario: Scenario, console: RecordedConsole, deadlines: Deadlines
) -> Panic:
    """Follow the board from the trigger to the panic line.

    Raises DeadlineError(part="board") for a board that hangs, BenchError(part="serial") when the
    port is gone.
    """
    account = PanicAccount(trigger=injection.trigger)
    panic_within_s = max(scenario.panic_within_s * deadlines.factor, deadlines.panic)
    if scenario.trigger is Trigger.BOOT:
        # Two boots: the one that panics, and the one that is watched after it.
        console.wait_for(KERNEL, deadlines.reset, "the boot that is to panic")
        panic_within_s = deadlines.boot
    left_s = max(0.1, injection.at + panic_within_s - time.monotonic())
    try:
        seen = patient(console, [PANIC, BOOT], left_s, "the panic")
    except DeadlineError as error:
        _check_alive(error, injection, console)
        return Panic(account.model_copy(update={"reset": "none"}), scenario, None, None)
    if seen.index == 1:
        return Panic(account, scenario, None, seen)
    known = {
        "panic_line": printable(seen.matched).strip(),
        "signature_found": _has_signature(scenario, seen, b""),
        "panic_console_lines": _lines_around(seen, b""),
    }
    return Panic(account.model_copy(update=known), scenario, seen, None)


def watch_bite(injection: Injection, scenario: Scenario) -> Panic:
    """Take a board for one that resets without a word, and stops in crash mode."""
    return Panic(PanicAccount(trigger=injection.trigger), scenario, None, None, gone=True)


def watch_reset(
    panic: Panic,
    injection: Injection,
    console: RecordedConsole,
    shell: BoardShell,
    deadlines: Deadlines,
) -> tuple[PanicAccount, Listing | None]:
    """Follow the board from the panic line to the next shell; how it came back, what pstore holds.

    ``reset`` is warm or cold by what memory still holds, none for a board that lives on. Raises
    DeadlineError(part="board") when it does not come back, BenchError(part="board") when it
    panics again while it boots, BenchError(part="serial") when the port is gone.
    """
    line, boot = panic.line, panic.boot
    if line is None and boot is None and not panic.gone:
        return panic.account, None
    if boot is None:
        boot = patient(console, [BOOT], deadlines.reset, "the reset after the panic")
    shell.fresh_boot()
    up = patient(
        console, [shell.prompt, PANIC], deadlines.boot, "the shell's prompt after the reset"
    )
    if up.index == 1:
        raise BenchError(
            f"the board panicked again while it booted: {printable(up.matched)}",
            part="board",
            next_step="This is a boot loop, or a panic left over; see console.log.",
        )
    after = after_panic(shell, deadlines.script)
    mark = injection.memory_mark
    if after.listing.files or (mark is not None and mark in after.pmsg):
        reset = "warm"
    else:
        reset = "cold" if mark is not None else "unknown"
    account = panic.account.model_copy(
        update={
            "signature_found": _has_signature(panic.scenario, line, boot.before),
            "panic_console_lines": _lines_around(line, boot.before),
            "panic_to_reset_s": round(boot.at - line.at, 3) if line else None,
            "reset": reset,
            "reset_to_shell_s": round(up.at - boot.at, 3),
            "boot_id_after": after.boot_id,
            "release_after": after.release,
            "build_id_after": after.build_id,
        }
    )
    if not account.signature_found:
        log = kept_log(shell, after.listing, injection.log_mark, deadlines.script)
        account = account.model_copy(update=_by_kept_log(panic.scenario, log))
    return account, after.listing


def _by_kept_log(scenario: Scenario, log: str) -> dict[str, object]:
    """What the kernel's own log says of a panic whose words the console lost."""
    if re.search(scenario.signature, log) is None:
        return {}
    line = PANIC.search(log.encode() + b"\n")
    return {
        "signature_found": True,
        "from_kept_log": True,
        "panic_line": None if line is None else printable(line[0]).strip(),
        "panic_console_lines": tuple(log.splitlines()[-_LINES_AFTER:]),
    }
