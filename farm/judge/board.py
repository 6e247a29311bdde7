"""Rules about the board: the bench's own failures, the panic, the reset, the kernel after it.

A scenario that did not end in its panic is judged by what is known:

1. a panic line that is not the scenario's: FAIL, the kernel died of something else;
2. no panic line and the same boot still answers: FAIL, the kernel survived the trigger;
3. no panic line, another boot answers, a dump of this panic is there: ERROR, the serial line lost
   the panic;
4. the same without a dump: FAIL, the board came back without ever panicking;
5. no panic line and no kernel known to be up: ERROR, hung.

``reset == "cold"`` is believed only when no record of this panic is there: memory that holds one
has not lost its content.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.judge.case import board_finding
from farm.judge.channels import TABLE
from farm.judge.dump import Dump
from farm.judge.names import shown
from farm.model import (
    BenchFault,
    CycleInput,
    Expect,
    Finding,
    FindingKind,
    Manifest,
    PanicAccount,
    Verdict,
)

__all__ = ["BoardRules", "judge_board"]

_TAIL_LINES = 12
_HANGING_STAGES = frozenset({"boot", "panic", "reset"})
_BENCH_PARTS = frozenset({"serial", "power", "disk", "controller", "bench", "host"})


@dataclass(frozen=True, slots=True)
class BoardRules:
    """What was found about the board.

    ``bench`` says that the bench, not the kernel, decides the cycle; ``absent`` is as in `Case`.
    """

    findings: tuple[Finding, ...]
    bench: bool = False
    absent: tuple[Verdict, str] | None = None


_BY_PLACE = {
    "boot loop": FindingKind.BOOT_LOOP,
    "crash mode": FindingKind.IN_CRASH_MODE,
    "hung": FindingKind.HUNG,
}


def _fault_kind(fault: BenchFault) -> FindingKind:
    if fault.part in _BENCH_PARTS:
        return FindingKind.BENCH_LOST
    # A mute line looks like a hung board; and a board is read while it is in crash mode.
    if fault.silent and _BY_PLACE.get(fault.place, FindingKind.HUNG) is FindingKind.HUNG:
        return FindingKind.SERIAL_SILENT
    if fault.stage == "collect":
        return FindingKind.CAPTURE_INCOMPLETE
    if fault.place in _BY_PLACE:
        return _BY_PLACE[fault.place]
    if fault.part == "board" and fault.stage in _HANGING_STAGES:
        return FindingKind.HUNG
    return FindingKind.BENCH_LOST


def _no_panic(panic: PanicAccount, manifest: Manifest, dump: Dump) -> BoardRules:
    tail = panic.panic_console_lines[-_TAIL_LINES:]

    def found(kind: FindingKind, verdict: Verdict, message: str) -> Finding:
        return board_finding(kind, verdict, message, console_lines=tail)

    trigger = shown(panic.trigger)
    if panic.panic_line is not None:
        message = f"not the scenario's panic: {shown(panic.panic_line)}"
        return BoardRules((found(FindingKind.NO_PANIC, Verdict.FAIL, message),))
    nothing = (Verdict.SKIP, "no panic, so no record")
    if panic.reset == "none" or panic.boot_id_after == manifest.boot_id:
        message = f"the kernel survived the trigger ({trigger})"
        finding = found(FindingKind.NO_PANIC, Verdict.FAIL, message)
        return BoardRules((finding,), absent=nothing)
    if dump.fresh:
        message = "a dump of this panic arrived, but the console does not show the panic"
        finding = found(FindingKind.BENCH_LOST, Verdict.ERROR, message)
        return BoardRules((finding,), bench=True, absent=(Verdict.ERROR, message))
    if panic.boot_id_after is not None or panic.release_after is not None:
        message = f"the board came back without a panic after the trigger ({trigger})"
        finding = found(FindingKind.NO_PANIC, Verdict.FAIL, message)
        return BoardRules((finding,), absent=nothing)
    message = f"no panic after the trigger ({trigger}), and no kernel answers"
    finding = found(FindingKind.HUNG, Verdict.ERROR, message)
    return BoardRules((finding,), bench=True, absent=(Verdict.ERROR, message))


def _wrong_kernel(panic: PanicAccount, manifest: Manifest) -> Finding | None:
    for what, before, after in (
        ("build id", manifest.build_id, panic.build_id_after),
        ("release", manifest.kernel_release, panic.release_after),
    ):
        if before is not None and after is not None and before != after:
            return board_finding(
                FindingKind.WRONG_KERNEL,
                Verdict.ERROR,
                f"another kernel came up after the reset: {what} {after}, expected {before}",
                expected=before,
                got=after,
            )
    return None


def _doubt(
    cycle: CycleInput, panic: PanicAccount, manifest: Manifest, dump: Dump
) -> Finding | None:
    """What makes the absence of records prove nothing, or the account contradict itself."""
    if not panic.signature_found or not manifest.devices:
        return None
    if not cycle.captures and not cycle.channels:
        message = "nothing was read back: no channel was read"
        return board_finding(FindingKind.CAPTURE_INCOMPLETE, Verdict.ERROR, message)
    if panic.boot_id_after == manifest.boot_id:
        message = "the console shows the panic, but the same boot answers after it"
        return board_finding(
            FindingKind.BENCH_LOST, Verdict.ERROR, message, expected="another boot", got="the same"
        )
    read_in_time = any(one.paddr is not None and one.channel != TABLE for one in cycle.captures)
    if (
        panic.reset == "unknown"
        and cycle.expect is not Expect.NONE
        and not (dump.fresh or dump.stale or dump.foreign or dump.incomplete or read_in_time)
    ):
        message = (
            "nothing arrived, and nothing shows whether the memory kept its power over the reset: "
            "there is neither a mark in pmsg nor any file in pstore"
        )
        return board_finding(FindingKind.COLD_RESET, Verdict.ERROR, message)
    return None


def judge_board(cycle: CycleInput, dump: Dump) -> BoardRules:
    """Judge all that is about no single device. Deterministic; order is by importance."""
    findings: list[Finding] = []
    bench = False
    absent: tuple[Verdict, str] | None = None

    def blame(finding: Finding) -> None:
        nonlocal bench, absent
        findings.append(finding)
        bench = True
        absent = absent or (Verdict.ERROR, f"not judged: {finding.message}")

    if cycle.fault is not None:
        fault = cycle.fault
        tail = () if cycle.panic is None else cycle.panic.panic_console_lines[-_TAIL_LINES:]
        # A DeadlineError's message begins with the part already.
        prefix = "" if fault.message.startswith(f"{fault.part}:") else f"{fault.part}: "
        message = f"{prefix}{fault.message} (stage {fault.stage})"
        if fault.silent:
            message += "; the serial line was silent: not one byte came in that time"
        blame(board_finding(_fault_kind(fault), Verdict.ERROR, message, console_lines=tail))
    if cycle.manifest is None:
        if not bench:
            message = "there is no manifest: the board was never armed"
            blame(board_finding(FindingKind.BENCH_LOST, Verdict.ERROR, message))
        return BoardRules(tuple(findings), bench, absent)
    panic = cycle.panic
    if panic is None:
        if not bench:
            message = "there is no account of the panic"
            blame(board_finding(FindingKind.BENCH_LOST, Verdict.ERROR, message))
        return BoardRules(tuple(findings), bench, absent)
    if (wrong := _wrong_kernel(panic, cycle.manifest)) is not None:
        blame(wrong)
    if panic.reset == "cold" and not dump.fresh:
        message = "cold reset: the memory that holds the records lost its content"
        blame(board_finding(FindingKind.COLD_RESET, Verdict.ERROR, message))
    if not bench and (doubt := _doubt(cycle, panic, cycle.manifest, dump)) is not None:
        blame(doubt)
    if panic.from_kept_log:
        message = "the console lost the words of the panic; the log that pstore kept has them"
        tail = panic.panic_console_lines[-_TAIL_LINES:]
        findings.append(
            board_finding(FindingKind.SERIAL_SILENT, Verdict.PASS, message, console_lines=tail)
        )
    # A bench that failed on the way may have seen only half of the console.
    if not panic.signature_found and not bench:
        outcome = _no_panic(panic, cycle.manifest, dump)
        findings.extend(outcome.findings)
        bench, absent = outcome.bench, outcome.absent
    return BoardRules(tuple(findings), bench, absent)
