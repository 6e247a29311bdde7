"""Rules about what is of no single device: contents record, ECC, old and foreign files, totals.

An ECC notice counts a whole zone and stands in every file of it, so counts of one channel are never
added up. Corrected symbols are no failure. An uncorrectable block is one only when a record is
damaged or gone: the CRC of an intact record proves that the block lies outside of it.
"""

from __future__ import annotations

from farm.formats.contents import Walk
from farm.formats.record import RecordState
from farm.judge.case import Case, zone_finding
from farm.judge.device import describe_stale, lay_there_before
from farm.judge.dump import DumpFile, same_names
from farm.judge.names import shown
from farm.judge.policy import expected_of_contents, unmatched_exceptions
from farm.model import Evidence, Expect, Finding, FindingKind, Subject, Verdict

__all__ = ["corrected_symbols", "judge_zone", "records_bytes"]


def records_bytes(case: Case) -> int:
    """Size of all records of this panic together, contents record included."""
    return sum(file.record_bytes for file in case.dump.fresh)


def corrected_symbols(case: Case) -> int:
    """Symbols that ECC corrected in the zone, however many channels and files tell of it."""
    return max((corrected for corrected, _ in _ecc_by_channel(case).values()), default=0)


def _ecc_by_channel(case: Case) -> dict[str, tuple[int, int]]:
    """Corrected symbols and bad blocks of each channel's zone."""
    zones: dict[str, tuple[int, int]] = {}
    for file in case.dump.fresh:
        if (notice := file.record.notice) is None:
            continue
        corrected, bad = zones.get(file.capture.channel, (0, 0))
        zones[file.capture.channel] = (
            max(corrected, notice.corrected_bytes),
            max(bad, notice.bad_blocks),
        )
    return zones


def _contents_findings(case: Case) -> list[Finding]:
    file = case.dump.contents
    wanted = bool(case.manifest.devices) and case.cycle.expect is not Expect.NONE
    if file is None:
        cut_short = any(one.is_contents or one.device_id is None for one in case.dump.incomplete)
        if not wanted or case.absent is not None or cut_short:
            return []
        message = (
            "the contents record is missing"
            if case.dump.fresh
            else "nothing arrived: no record of this panic is in pstore"
        )
        return [zone_finding(FindingKind.MISSING, Verdict.FAIL, message)]
    name = shown(file.capture.board_name)
    if case.cycle.expect is Expect.NONE:
        message = f"a contents record arrived ({name}), but this scenario must leave no record"
        return [zone_finding(FindingKind.UNEXPECTED, Verdict.FAIL, message, file=file.capture.path)]
    if file.contents is None:
        return [_damaged_contents(file)]
    findings = []
    table = file.contents
    if file.surplus_bytes:
        findings.append(
            zone_finding(
                FindingKind.UNEXPECTED,
                Verdict.FAIL,
                f"{file.surplus_bytes} bytes follow the contents record ({name})",
                file=file.capture.path,
                offset=file.record.record_size_bytes,
            )
        )
    for damage in table.damages[:1]:
        at = file.record.regions[0].offset + damage.offset
        findings.append(
            zone_finding(
                FindingKind.CORRUPT,
                Verdict.FAIL,
                f"the contents record ({name}) is malformed at {at:#x}: {shown(damage.what)}",
                file=file.capture.path,
                offset=at,
            )
        )
    if table.walk is not Walk.COMPLETE:
        message = (
            f"the dump was cut short: the contents record ({name}) was written before its end; "
            "a callback never returned, or a reset came first"
        )
        wanted_so = FindingKind.NOT_REACHED in expected_of_contents(case.cycle)
        verdict = Verdict.PASS if wanted_so else Verdict.FAIL
        findings.append(
            zone_finding(FindingKind.NOT_REACHED, verdict, message, file=file.capture.path)
        )
    if len(table.entries) < table.nr_devices:
        # Whether a device arrived is seen at its own record, so the cut alone fails nothing.
        message = f"the contents record lists {len(table.entries)} of {table.nr_devices} devices"
        findings.append(
            zone_finding(FindingKind.TRUNCATED, Verdict.PASS, message, file=file.capture.path)
        )
    known = {device.id for device in case.manifest.devices}
    recorded = {file.record.device_id for file in case.dump.unexpected}
    for entry in table.entries:
        if entry.device_id not in known | recorded:
            message = (
                f"the contents record lists {shown(entry.driver)} / {shown(entry.device)} "
                f"(id {entry.device_id}), which was not registered"
            )
            findings.append(
                zone_finding(FindingKind.UNEXPECTED, Verdict.FAIL, message, file=file.capture.path)
            )
    return findings


def _damaged_contents(file: DumpFile) -> Finding:
    damage = file.record.damages[0] if file.record.damages else None
    torn = file.record.state is RecordState.TORN
    detail = "" if damage is None else f": {shown(damage.what)} at {damage.offset:#x}"
    return zone_finding(
        FindingKind.TORN if torn else FindingKind.CORRUPT,
        Verdict.FAIL,
        f"the contents record ({shown(file.capture.board_name)}) is "
        f"{'torn' if torn else 'corrupt'}{detail}",
        file=file.capture.path,
        offset=None if damage is None else damage.offset,
    )


def _ecc_findings(case: Case, *, all_intact: bool) -> list[Finding]:
    findings = []
    for channel, (corrected, bad) in sorted(_ecc_by_channel(case).items()):
        if bad:
            verdict = Verdict.PASS if all_intact else Verdict.FAIL
            blocks = "1 block" if bad == 1 else f"{bad} blocks"
            outside = ", all outside of the records" if all_intact else ""
            findings.append(
                zone_finding(
                    FindingKind.ECC_UNCORRECTABLE,
                    verdict,
                    f"ECC could not correct {blocks} of the zone read by {shown(channel)}{outside}",
                )
            )
        if corrected:
            symbols = "1 symbol" if corrected == 1 else f"{corrected} symbols"
            findings.append(
                zone_finding(
                    FindingKind.ECC_CORRECTED,
                    Verdict.PASS,
                    f"ECC corrected {symbols} of the zone read by {shown(channel)}",
                )
            )
    return findings


def _file_findings(case: Case) -> list[Finding]:
    """Name every file that is no record of this panic, or is not whole."""
    findings = [
        zone_finding(
            FindingKind.CAPTURE_INCOMPLETE,
            Verdict.ERROR,
            f"capture incomplete ({shown(one.capture.board_name)}): {shown(one.message)}",
            file=one.capture.path,
        )
        for one in case.dump.incomplete
    ]
    findings += [
        zone_finding(
            FindingKind.CORRUPT,
            Verdict.FAIL,
            f"{shown(one.capture.board_name)} is no panicdump record: {shown(one.message)}",
            file=one.capture.path,
            offset=one.offset,
        )
        for one in case.dump.foreign
    ]
    for file in case.dump.stale:
        if _told_by_its_device(case, file):
            continue
        # What lay there before is no record of this panic: a scenario that leaves none is kept.
        harmless = case.cycle.expect is Expect.NONE and lay_there_before(file, case)
        findings.append(
            zone_finding(
                FindingKind.STALE,
                Verdict.PASS if harmless else Verdict.FAIL,
                f"stale: {describe_stale(file, case)}",
                file=file.capture.path,
            )
        )
    for file in case.dump.ahead:
        findings.append(
            zone_finding(
                FindingKind.WRONG_IDENTITY,
                Verdict.FAIL,
                describe_stale(file, case),
                file=file.capture.path,
            )
        )
    return findings


def _told_by_its_device(case: Case, file: DumpFile) -> bool:
    """Whether a registered device without a record has a stale finding of its own for ``file``."""
    if case.absent is not None or case.dump.incomplete or case.cycle.expect is Expect.NONE:
        return False
    for device in case.manifest.devices:
        if device.id in case.dump.devices:
            continue
        first = next((one for one in case.dump.stale if same_names(device, one.record)), None)
        if first is file:
            return True
    return False


def _budget_findings(case: Case) -> list[Finding]:
    findings = []
    total = case.cycle.policy.total_budget_bytes
    used = records_bytes(case)
    if total is not None and used > total:
        message = f"over budget: all records together have {used} bytes of {total}"
        findings.append(zone_finding(FindingKind.OVER_BUDGET, Verdict.FAIL, message))
    needed, capacity = case.manifest.needed_bytes, case.manifest.capacity_bytes
    if needed > capacity:
        # The need is a worst case: whether it did fit is seen at the records.
        message = f"the capacity of {capacity} bytes is below the {needed} that may be needed"
        findings.append(zone_finding(FindingKind.OVERFLOW, Verdict.PASS, message))
    return findings


def _never_registered(patterns: tuple[str, ...], wanted: str) -> list[Finding]:
    return [
        Finding(
            subject=Subject.DEVICE,
            kind=FindingKind.NEVER_REGISTERED,
            verdict=Verdict.FAIL,
            message=f"{shown(pattern)}: {wanted}, but never registered",
            device=shown(pattern),
            driver=shown(pattern),
            evidence=Evidence(expected=shown(pattern), got="no such device in the manifest"),
        )
        for pattern in patterns
    ]


def judge_zone(case: Case, *, all_intact: bool, never_registered: tuple[str, ...]) -> list[Finding]:
    """Judge everything that is of no registered device; ``all_intact`` is of those that are."""
    contents = _contents_findings(case)
    all_intact = all_intact and not any(one.verdict is Verdict.FAIL for one in contents)
    all_intact = all_intact and not case.dump.foreign
    return [
        *_never_registered(never_registered, "required"),
        *_never_registered(
            unmatched_exceptions(case.cycle, case.manifest.devices), "what the scenario is about"
        ),
        *contents,
        *_file_findings(case),
        *_budget_findings(case),
        *_ecc_findings(case, all_intact=all_intact),
    ]
