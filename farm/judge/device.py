"""Rules about one registered device: what arrived of it, and why nothing did.

Every rule that fails adds a finding of its own; the device's line carries the first, and a line
passes only when no rule failed. Content is checked byte by byte where the farm planted it, else by
the record's CRC alone, and the line says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.formats.contents import Outcome
from farm.formats.record import Record, RecordFlags, RecordState, Region, RegionFlags
from farm.judge.case import Case
from farm.judge.content import Difference, first_difference, full_size_bytes, planted_bytes
from farm.judge.dump import DumpFile, Incomplete, same_names
from farm.judge.names import REGION_NAME_BYTES, same_name, shown
from farm.judge.policy import budget_of, expected_of, is_required
from farm.model import (
    DeviceVerdict,
    Evidence,
    Expect,
    Finding,
    FindingKind,
    ManifestDevice,
    ManifestRegion,
    RegionKind,
    Subject,
    Verdict,
)

__all__ = ["AS_WANTED", "describe_stale", "judge_device", "judge_unexpected", "lay_there_before"]

AS_WANTED = "as the scenario wants it"

_KINDS = {
    RegionKind.BUFFER: 1,
    RegionKind.REGISTERS: 2,
    RegionKind.CALLBACK: 3,
    RegionKind.NOTE: 4,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that failed; ``why`` does not name the device."""

    kind: FindingKind
    why: str
    evidence: Evidence | None = None


def lay_there_before(file: DumpFile, case: Case) -> bool:
    """Whether the very same file was in pstore before the panic."""
    return any(file.capture.sha256 == old.sha256 for old in case.manifest.old_records)


def describe_stale(file: DumpFile, case: Case) -> str:
    """Say how one knows that a record is not of this panic."""
    name = shown(file.capture.board_name)
    if lay_there_before(file, case):
        return f"{name} lay there before the panic already"
    record = file.record
    if record.boot_id != case.manifest.boot_id.lower():
        return f"{name} is of another boot ({record.boot_id})"
    return f"{name} is of panic {record.sequence} of this boot, not {case.manifest.sequence + 1}"


def _at(file: DumpFile, offset: int) -> str:
    return f"at {offset:#x} of {shown(file.capture.board_name)}"


def _difference_fault(
    file: DumpFile, region: Region, difference: Difference, *, crc_holds: bool
) -> Fault:
    name = shown(region.name)
    offset = region.offset + difference.offset
    plural = "byte" if difference.wrong_bytes == 1 else "bytes"
    why = (
        f"region {name} is wrong from byte {difference.offset:#x} on ({_at(file, offset)}), "
        f"{difference.wrong_bytes} {plural} wrong"
    )
    if crc_holds:
        why += "; the CRC holds, so it was saved like that"
    return Fault(
        FindingKind.CORRUPT,
        why,
        Evidence(
            file=file.capture.path,
            offset=offset,
            region=name,
            region_offset=difference.offset,
            wrong_bytes=difference.wrong_bytes,
            expected=difference.expected,
            got=difference.got,
        ),
    )


def _description_fault(
    case: Case, file: DumpFile, wanted: ManifestRegion, region: Region
) -> Fault | None:
    """Compare how a region is described: in the record as it was registered?"""
    moved = case.manifest.next_boot
    checks: list[tuple[str, str, str]] = [
        ("kind", str(_KINDS[wanted.kind]), str(int(region.kind))),
    ]
    located = wanted.kind is RegionKind.BUFFER and wanted.decided_in_panic
    if not located:
        if not moved:
            checks.append(("va", f"{wanted.va:#x}", f"{region.va:#x}"))
        checks.append(("size", str(wanted.size_bytes), str(region.size_bytes)))
    if wanted.kind is RegionKind.REGISTERS:
        checks.append(("width", str(wanted.width_bytes), str(region.width_bytes)))
        checks.append(("stride", str(wanted.stride_bytes), str(region.stride_bytes)))
    if wanted.pa is not None and region.pa is not None and not moved:
        checks.append(("pa", f"{wanted.pa:#x}", f"{region.pa:#x}"))
    if not same_name(wanted.name, region.name, region.name_raw, REGION_NAME_BYTES):
        checks.append(("name", shown(wanted.name), shown(region.name)))
    for what, expected, got in checks:
        if expected != got:
            return Fault(
                FindingKind.WRONG_IDENTITY,
                f"region {wanted.index} ({shown(wanted.name)}) has {what} {got}, "
                f"registered with {expected}",
                Evidence(
                    file=file.capture.path,
                    region=shown(wanted.name),
                    expected=expected,
                    got=got,
                ),
            )
    return None


def _region_faults(
    case: Case, device: ManifestDevice, file: DumpFile, wanted: ManifestRegion, region: Region
) -> list[Fault]:
    name = shown(region.name)
    intact = file.record.state is RecordState.INTACT
    if intact and (fault := _description_fault(case, file, wanted, region)) is not None:
        return [fault]
    if intact and RegionFlags.CALLBACK_ERROR in region.flags:
        return [
            Fault(
                FindingKind.CALLBACK_FAILED,
                f"the callback of region {name} failed with error {region.error}",
                Evidence(file=file.capture.path, region=name),
            )
        ]
    if intact and RegionFlags.FAULT in region.flags:
        return [
            Fault(
                FindingKind.REGION_FAULT,
                f"region {name} could not be read completely, error {region.error}",
                Evidence(file=file.capture.path, offset=region.offset, region=name),
            )
        ]
    faults: list[Fault] = []
    planted = planted_bytes(case.manifest.nonce, device, wanted, len(region.data))
    difference = None if planted is None else first_difference(planted, region.data)
    if difference is not None:
        faults.append(_difference_fault(file, region, difference, crc_holds=region.crc_ok))
    elif not region.crc_ok and len(region.data) == region.saved_bytes:
        faults.append(
            Fault(
                FindingKind.CORRUPT,
                f"the CRC of region {name} does not hold ({_at(file, region.offset)})",
                Evidence(file=file.capture.path, offset=region.offset, region=name),
            )
        )
    if not intact:
        return faults
    full = full_size_bytes(wanted)
    # How much another driver's code comes up with is its own choice; the sample's is fixed.
    must_be_full = not wanted.decided_in_panic or planted is not None
    if RegionFlags.TRUNCATED in region.flags or (must_be_full and region.saved_bytes < full):
        faults.append(
            Fault(
                FindingKind.TRUNCATED,
                f"region {name} holds {region.saved_bytes} of {full} bytes",
                Evidence(
                    file=file.capture.path,
                    offset=region.offset + len(region.data),
                    region=name,
                    region_offset=len(region.data),
                    wrong_bytes=max(0, full - region.saved_bytes) or None,
                ),
            )
        )
    elif region.saved_bytes > full:
        faults.append(
            Fault(
                FindingKind.WRONG_IDENTITY,
                f"region {name} holds {region.saved_bytes} bytes, registered are {full}",
                Evidence(file=file.capture.path, region=name),
            )
        )
    return faults


def _damage_fault(file: DumpFile) -> Fault:
    """Describe damage of a record that no region shows."""
    record = file.record
    damage = record.damages[0] if record.damages else None
    offset = 0 if damage is None else damage.offset
    detail = "" if damage is None else f": {shown(damage.what)}"
    evidence = Evidence(file=file.capture.path, offset=offset)
    if record.state is RecordState.TORN:
        return Fault(
            FindingKind.TORN,
            f"the record was not written to its end ({_at(file, offset)}){detail}",
            evidence,
        )
    return Fault(
        FindingKind.CORRUPT,
        f"the record is damaged outside of its regions ({_at(file, offset)}){detail}",
        evidence,
    )


def _record_faults(case: Case, device: ManifestDevice, file: DumpFile) -> list[Fault]:
    record = file.record
    faults: list[Fault] = []
    if record.state is RecordState.INTACT:
        if not same_names(device, record):
            faults.append(
                Fault(
                    FindingKind.WRONG_IDENTITY,
                    f"the record calls itself {shown(record.driver)} / {shown(record.device)}",
                    Evidence(
                        file=file.capture.path,
                        expected=f"{shown(device.driver)} / {shown(device.name)}",
                        got=f"{shown(record.driver)} / {shown(record.device)}",
                    ),
                )
            )
        if len(record.regions) != len(device.regions):
            faults.append(
                Fault(
                    FindingKind.WRONG_IDENTITY,
                    f"the record has {len(record.regions)} regions, "
                    f"registered are {len(device.regions)}",
                    Evidence(file=file.capture.path),
                )
            )
    if record.state is RecordState.TORN:
        faults.append(_damage_fault(file))
    by_index = sorted(device.regions, key=lambda region: region.index)
    for wanted, region in zip(by_index, record.regions, strict=False):
        faults.extend(_region_faults(case, device, file, wanted, region))
    if record.state is RecordState.CORRUPT and not faults:
        faults.append(_damage_fault(file))
    if record.state is RecordState.INTACT and not faults:
        faults.extend(_flag_faults(file))
    faults.extend(_surplus_faults(file))
    return faults + _entry_faults(case, device, record)


_SAVED_WRONG = RecordFlags.TRUNCATED | RecordFlags.FAULT | RecordFlags.CALLBACK_ERROR


def _flag_faults(file: DumpFile) -> list[Fault]:
    """What the record says of itself as a whole, where no region says it."""
    record = file.record
    evidence = Evidence(file=file.capture.path, offset=record.header_offset)
    if RecordFlags.CALLBACK_ERROR in record.flags or record.error:
        why = f"the record says that saving it failed, error {record.error}"
        return [Fault(FindingKind.CALLBACK_FAILED, why, evidence)]
    if record.flags & _SAVED_WRONG:
        kind = (
            FindingKind.REGION_FAULT if RecordFlags.FAULT in record.flags else FindingKind.TRUNCATED
        )
        return [Fault(kind, "the record says that it is not complete", evidence)]
    return []


def _surplus_faults(file: DumpFile) -> list[Fault]:
    if not file.surplus_bytes:
        return []
    end = file.record.record_size_bytes
    return [
        Fault(
            FindingKind.UNEXPECTED,
            f"{file.surplus_bytes} bytes follow the record ({_at(file, end)})",
            Evidence(file=file.capture.path, offset=end),
        )
    ]


_KEPT = frozenset({Outcome.SAVED, Outcome.SAVED_IN_PART, Outcome.CALLBACK_FAILED})


def _outcome_fault(case: Case, outcome: Outcome, needed_bytes: int, error: int) -> Fault:
    """Put into words why the kernel wrote no record of a device."""
    code = f" (error {error})" if error else ""
    match outcome:
        case Outcome.OVERFLOW:
            return Fault(
                FindingKind.OVERFLOW,
                f"it did not fit: needs {needed_bytes} bytes of {case.manifest.capacity_bytes}",
            )
        case Outcome.NOT_REACHED:
            return Fault(FindingKind.NOT_REACHED, "the walk stopped before it")
        case Outcome.WRITE_FAILED:
            return Fault(FindingKind.WRITE_FAILED, f"writing its record failed{code}")
        case Outcome.CALLBACK_FAILED:
            return Fault(
                FindingKind.CALLBACK_FAILED, f"its callback failed{code} and no record is there"
            )
        case Outcome.CALLBACK_NEVER_RETURNED:
            return Fault(FindingKind.CALLBACK_FAILED, "its callback never returned")
        case _:
            return Fault(FindingKind.MISSING, f"no record; its outcome is {outcome.name}{code}")


def _entry_faults(case: Case, device: ManifestDevice, record: Record) -> list[Fault]:
    """Hold an existing record against what the contents record says of it."""
    entry = case.entry(device.id)
    if entry is None or record.state is not RecordState.INTACT:
        return []
    if entry.outcome is Outcome.NOT_REACHED and case.cut_short:
        # The table is older than the record.
        return []
    if entry.outcome not in _KEPT:
        fault = _outcome_fault(case, entry.outcome, entry.needed_bytes, entry.error)
        return [Fault(fault.kind, f"the contents record says of it: {fault.why}", fault.evidence)]
    if entry.index is not None and entry.index != record.index:
        return [
            Fault(
                FindingKind.WRONG_IDENTITY,
                f"the contents record lists it as record {entry.index}, "
                f"it calls itself record {record.index}",
            )
        ]
    if entry.saved_bytes != record.record_size_bytes:
        return [
            Fault(
                FindingKind.WRONG_IDENTITY,
                f"the contents record says {entry.saved_bytes} bytes, "
                f"the record has {record.record_size_bytes}",
            )
        ]
    return []


def _missing_fault(case: Case, device: ManifestDevice) -> Fault:
    """Say why a device has no record, as far as the contents record tells."""
    entry = case.entry(device.id)
    contents = None if case.dump.contents is None else case.dump.contents.contents
    if entry is not None:
        if entry.outcome in (Outcome.SAVED, Outcome.SAVED_IN_PART):
            return Fault(
                FindingKind.RECORD_LOST,
                f"saved with {entry.saved_bytes} bytes as record {entry.index}, "
                "but no file holds it",
            )
        return _outcome_fault(case, entry.outcome, entry.needed_bytes, entry.error)
    if contents is None:
        reason = "no usable contents record tells why" if case.dump.fresh else "nothing arrived"
        return Fault(FindingKind.MISSING, f"no record, and {reason}")
    if len(contents.entries) < contents.nr_devices:
        return Fault(
            FindingKind.MISSING,
            f"no record, and the contents record was cut after {len(contents.entries)} "
            f"of {contents.nr_devices} devices",
        )
    return Fault(FindingKind.MISSING, "no record, and the contents record does not list it")


def _finding(device: ManifestDevice, kind: FindingKind, verdict: Verdict, fault: Fault) -> Finding:
    return Finding(
        subject=Subject.DEVICE,
        kind=kind,
        verdict=verdict,
        message=f"{shown(device.name)}: {fault.why}",
        device=shown(device.name),
        driver=shown(device.driver),
        evidence=fault.evidence,
    )


def _unattributed(incomplete: Incomplete, case: Case) -> bool:
    known = {device.id for device in case.manifest.devices}
    return not incomplete.is_contents and incomplete.device_id not in known


def _without_record(case: Case, device: ManifestDevice) -> tuple[Verdict, str, list[Finding]]:
    stale = next((file for file in case.dump.stale if same_names(device, file.record)), None)
    cut_short = next(
        (one for one in case.dump.incomplete if one.device_id == device.id),
        next((one for one in case.dump.incomplete if _unattributed(one, case)), None),
    )
    if case.absent is not None:
        verdict, why = case.absent
        return verdict, why, []
    # The board-wide rules list every cut-short and every stale file once.
    if cut_short is not None:
        name = shown(cut_short.capture.board_name)
        return Verdict.ERROR, f"capture incomplete ({name}): {shown(cut_short.message)}", []
    if case.cycle.expect is Expect.NONE:
        return Verdict.PASS, f"no record, {AS_WANTED}", []
    if stale is not None:
        fault = Fault(
            FindingKind.STALE,
            f"stale: {describe_stale(stale, case)}",
            Evidence(file=stale.capture.path),
        )
    else:
        fault = _missing_fault(case, device)
    return _weighed(case, device, [fault])


def _weighed(
    case: Case, device: ManifestDevice, faults: list[Fault]
) -> tuple[Verdict, str, list[Finding]]:
    """Hold what is wrong with a device against what the scenario says must be wrong with it."""
    kinds = expected_of(case.cycle, device)
    if kinds and not faults:
        wanted = " or ".join(sorted(kinds))
        faults = [Fault(FindingKind.UNEXPECTED, f"intact, but the scenario wants it {wanted}")]
    elif kinds and all(fault.kind in kinds for fault in faults):
        why = f"{AS_WANTED}: {faults[0].why}"
        return Verdict.PASS, why, [_finding(device, f.kind, Verdict.PASS, f) for f in faults]
    why = faults[0].why
    if len(faults) > 1:
        why += f" (and {len(faults) - 1} more)"
    return Verdict.FAIL, why, [_finding(device, f.kind, Verdict.FAIL, f) for f in faults]


def _intact_why(case: Case, device: ManifestDevice, record: Record) -> str:
    if not device.regions:
        return "intact, without regions"
    planted = all(
        planted_bytes(case.manifest.nonce, device, region, 0) is not None
        for region in device.regions
    )
    count = len(record.regions)
    regions = "1 region" if count == 1 else f"{count} regions"
    if planted:
        return f"intact, {regions} equal byte by byte"
    equal = sum(
        found.equal and len(found.recorded) == len(region.data)
        for region in record.regions
        if (found := case.memory.get((device.id, region.index))) is not None
    )
    if equal == count:
        return f"intact, {regions} equal to the memory"
    return f"intact, {regions} by CRC only" + (f", {equal} equal to the memory" if equal else "")


def judge_device(case: Case, device: ManifestDevice) -> tuple[DeviceVerdict, list[Finding]]:
    """Judge one registered device: its line of the table and its findings, the heaviest first."""
    policy = case.cycle.policy
    budget = budget_of(policy, device)
    required = is_required(policy, device)
    file = case.dump.devices.get(device.id)
    if file is None:
        verdict, why, findings = _without_record(case, device)
        row = DeviceVerdict(
            device=shown(device.name),
            driver=shown(device.driver),
            record_bytes=0,
            data_bytes=0,
            budget_bytes=budget,
            verdict=verdict,
            why=why,
            required=required,
        )
        return row, findings
    if case.cycle.expect is Expect.NONE:
        faults = [
            Fault(
                FindingKind.UNEXPECTED,
                f"a record arrived ({shown(file.capture.board_name)}), "
                "but this scenario must leave none",
                Evidence(file=file.capture.path),
            )
        ]
    else:
        faults = _record_faults(case, device, file)
    if budget is not None and file.record_bytes > budget:
        faults.append(
            Fault(
                FindingKind.OVER_BUDGET,
                f"over budget: {file.record_bytes} bytes of {budget}",
                Evidence(file=file.capture.path),
            )
        )
    if faults or expected_of(case.cycle, device):
        verdict, why, findings = _weighed(case, device, faults)
    else:
        verdict, why = Verdict.PASS, _intact_why(case, device, file.record)
        fault = Fault(FindingKind.INTACT, why, Evidence(file=file.capture.path))
        findings = [_finding(device, FindingKind.INTACT, Verdict.PASS, fault)]
    row = DeviceVerdict(
        device=shown(device.name),
        driver=shown(device.driver),
        record_bytes=file.record_bytes,
        data_bytes=sum(len(region.data) for region in file.record.regions),
        budget_bytes=budget,
        verdict=verdict,
        why=why,
        capture=file.capture.path,
        required=required,
    )
    return row, findings


def judge_unexpected(file: DumpFile) -> tuple[DeviceVerdict, Finding]:
    """Judge a record of this panic that no device of the manifest accounts for."""
    record = file.record
    why = f"unexpected: {shown(file.capture.board_name)} is of no device that was registered"
    name, driver = shown(record.device), shown(record.driver)
    row = DeviceVerdict(
        device=name,
        driver=driver,
        record_bytes=file.record_bytes,
        data_bytes=sum(len(region.data) for region in record.regions),
        budget_bytes=None,
        verdict=Verdict.FAIL,
        why=why,
        capture=file.capture.path,
    )
    finding = Finding(
        subject=Subject.DEVICE,
        kind=FindingKind.UNEXPECTED,
        verdict=Verdict.FAIL,
        message=f"{name}: {why}",
        device=name,
        driver=driver,
        evidence=Evidence(file=file.capture.path),
    )
    return row, finding
