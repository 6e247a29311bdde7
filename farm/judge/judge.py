"""One cycle judged: from the manifest, the console's account and the captures to a verdict.

Pure and deterministic: no board, no clock, no network; the same input gives the same verdict at
any later time.

How the cycle's verdict follows:

* SKIP at once when the input says that the board cannot run the scenario;
* ERROR whenever the bench failed, lost the board, got another kernel or a cold reset. What was
  surely found on the devices before stays listed, but never counts as a kernel failure;
* else FAIL when any finding is FAIL, else ERROR when any is ERROR;
* else SKIP when no device was registered, for then nothing was tested; else PASS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farm.judge.blame import blame_of, blamed
from farm.judge.board import judge_board
from farm.judge.case import Case, board_finding
from farm.judge.channels import read_channels
from farm.judge.device import AS_WANTED, judge_device, judge_unexpected
from farm.judge.dump import Dump, read_dump
from farm.judge.memory import compare_memory, memory_findings
from farm.judge.memory_table import judge_table
from farm.judge.names import shown
from farm.judge.policy import unmatched
from farm.judge.zone import corrected_symbols, judge_zone, records_bytes
from farm.model import (
    Blame,
    Capture,
    CycleInput,
    CycleVerdict,
    DeviceVerdict,
    Expect,
    Finding,
    FindingKind,
    Manifest,
    ManifestDevice,
    Verdict,
)

__all__ = ["judge"]

# What explains the rest comes first: the walk stops at the device that did not fit.
_IMPORTANCE = (
    FindingKind.NO_PANIC,
    FindingKind.NEVER_REGISTERED,
    FindingKind.CORRUPT,
    FindingKind.TORN,
    FindingKind.MEMORY_DIFFERS,
    FindingKind.HEADER_LOST,
    FindingKind.STALE,
    FindingKind.RECORD_LOST,
    FindingKind.WRITE_FAILED,
    FindingKind.CALLBACK_FAILED,
    FindingKind.OVERFLOW,
    FindingKind.NOT_REACHED,
    FindingKind.MISSING,
    FindingKind.REGION_FAULT,
    FindingKind.TRUNCATED,
    FindingKind.WRONG_IDENTITY,
    FindingKind.UNEXPECTED,
    FindingKind.OVER_BUDGET,
    FindingKind.ECC_UNCORRECTABLE,
    FindingKind.CHANNELS_DISAGREE,
)
_RANK = {kind: rank for rank, kind in enumerate(_IMPORTANCE)}


def judge(cycle: CycleInput, read_capture: Callable[[Capture], bytes]) -> CycleVerdict:
    """Judge one cycle.

    ``read_capture`` returns the bytes of a capture; when it raises FarmError or OSError, the
    capture counts as incomplete. Nothing that a board says makes this function raise.
    """
    if cycle.unsupported:
        why = f"the board has no {shown(', '.join(cycle.unsupported))}"
        finding = board_finding(FindingKind.UNSUPPORTED, Verdict.SKIP, why)
        return CycleVerdict(
            verdict=Verdict.SKIP,
            why=why,
            devices=(),
            findings=blamed([finding]),
            blame=blame_of(finding),
        )
    channels = read_channels(cycle, read_capture)
    dump = read_dump(channels.captures, cycle.manifest, channels.read)
    board = judge_board(cycle, dump)
    if cycle.manifest is None:
        return CycleVerdict(
            verdict=Verdict.ERROR,
            why=board.findings[0].message,
            devices=(),
            findings=blamed(board.findings),
            blame=Blame.BENCH,
        )
    memory, unread = compare_memory(cycle, cycle.manifest, dump, read_capture)
    case = Case(cycle, cycle.manifest, dump, board.absent, memory)
    rows: list[DeviceVerdict] = []
    findings: list[Finding] = []
    for device in _walk_order(case.manifest, dump):
        row, found = judge_device(case, device)
        rows.append(row)
        findings.extend(found)
    all_intact = all(row.verdict is Verdict.PASS for row in rows)
    for file in dump.unexpected:
        row, one = judge_unexpected(file)
        rows.append(row)
        findings.append(one)
    never_registered = unmatched(cycle.policy, case.manifest.devices)
    rows.extend(_never_registered(pattern) for pattern in never_registered)
    zone = judge_zone(case, all_intact=all_intact, never_registered=never_registered)
    compared = [*unread, *memory_findings(case), *judge_table(cycle, read_capture)]
    findings = [*board.findings, *channels.findings, *zone, *compared, *findings]
    verdict = _verdict(findings, rows, bench=board.bench)
    deciding = None if board.bench else _deciding(verdict, findings)
    contents = None if dump.contents is None else dump.contents.contents
    return CycleVerdict(
        verdict=verdict,
        why=board.findings[0].message if board.bench else _why(verdict, findings, rows, case),
        devices=tuple(rows),
        findings=blamed(findings),
        blame=Blame.BENCH if board.bench else None if deciding is None else blame_of(deciding),
        corrected_symbols=max(corrected_symbols(case), channels.corrected_symbols),
        used_bytes=records_bytes(case)
        if contents is None or case.cut_short
        else contents.used_bytes,
        capacity_bytes=case.manifest.capacity_bytes,
    )


def _walk_order(manifest: Manifest, dump: Dump) -> tuple[ManifestDevice, ...]:
    """Sort devices as the kernel walked them; what the contents record does not list comes last."""
    table = None if dump.contents is None else dump.contents.contents
    listed = () if table is None else tuple(entry.device_id for entry in table.entries)
    place = {device_id: at for at, device_id in reversed(tuple(enumerate(listed)))}
    return tuple(sorted(manifest.devices, key=lambda device: place.get(device.id, len(listed))))


def _never_registered(pattern: str) -> DeviceVerdict:
    return DeviceVerdict(
        device=shown(pattern),
        driver="-",
        record_bytes=0,
        data_bytes=0,
        budget_bytes=None,
        verdict=Verdict.FAIL,
        why="required, but never registered",
        required=True,
    )


def _verdict(findings: Sequence[Finding], rows: Sequence[DeviceVerdict], *, bench: bool) -> Verdict:
    if bench:
        return Verdict.ERROR
    found = {finding.verdict for finding in findings} | {row.verdict for row in rows}
    for verdict in (Verdict.FAIL, Verdict.ERROR):
        if verdict in found:
            return verdict
    return Verdict.PASS if Verdict.PASS in {row.verdict for row in rows} else Verdict.SKIP


def _why(
    verdict: Verdict, findings: Sequence[Finding], rows: Sequence[DeviceVerdict], case: Case
) -> str:
    if verdict is Verdict.SKIP:
        return "no device is registered: nothing was tested"
    if verdict is Verdict.PASS:
        count = len(rows)
        devices = "the one registered device" if count == 1 else f"all {count} registered devices"
        if case.cycle.expect is Expect.NONE:
            return f"no record of {devices}, as the scenario wants it"
        if case.cycle.expect is Expect.PARTIAL:
            missing = sum(row.why.startswith(AS_WANTED) for row in rows)
            return f"{count - missing} devices intact, {missing} not, {AS_WANTED}"
        by_crc = sum("by CRC only" in row.why for row in rows)
        note = f", {by_crc} of them checked by CRC only" if by_crc else ""
        return f"{devices} intact{note}"
    first = _deciding(verdict, findings)
    if first is None:
        return next(row.why for row in rows if row.verdict is verdict)
    count = sum(finding.verdict is verdict for finding in findings)
    return first.message + (f" (and {count - 1} more)" if count > 1 else "")


def _deciding(verdict: Verdict, findings: Sequence[Finding]) -> Finding | None:
    """Return the finding that decides: the most important one with the cycle's verdict."""
    if verdict in (Verdict.PASS, Verdict.SKIP):
        return None
    guilty = (finding for finding in findings if finding.verdict is verdict)
    return min(guilty, key=lambda finding: _RANK.get(finding.kind, len(_RANK)), default=None)
