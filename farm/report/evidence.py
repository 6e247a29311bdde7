"""The evidence of one cycle made fit to look at: console, records byte by byte, channels compared.

Reads the captures below a run's folder and holds them against their sha256. What is gone or was
changed is said in its place; nothing here decides anything, that is `farm.judge`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from farm.errors import FarmError, FormatError
from farm.formats.contents import Contents, decode_contents
from farm.formats.layout import flag_names
from farm.formats.record import Record, RecordKind, RecordState, Region, decode_record
from farm.judge.channels import channel_records
from farm.judge.content import planted_bytes
from farm.judge.run_folder import reader_for
from farm.model import Capture, Cycle, CycleInput, Finding, FindingKind, Verdict
from farm.report.console import console_excerpt, marked_lines
from farm.report.hexdump import HexRow, Marks, hexdump
from farm.report.printable import exact_size_text, visible

__all__ = ["ChannelDiff", "DiffLine", "EvidenceView", "RecordView", "evidence_of", "region_flags"]

CONSOLE_NAME = "console.log"
_PREFIX = "panicdump-"
_TAIL_BYTES = 12 << 10
_TAIL_LINES = 60
_MOST_MARKS = 4096
_MOST_DIFFS = 8


@dataclass(frozen=True, slots=True)
class RecordView:
    """One record: whose it is, what it says of itself, its bytes, what was found wrong in it."""

    name: str
    title: str
    state: str
    why_not: str
    facts: tuple[tuple[str, str], ...]
    regions: tuple[Region, ...]
    contents: Contents | None
    rows: tuple[HexRow, ...]
    findings: tuple[Finding, ...]
    path: str
    size_bytes: int

    @property
    def wrong(self) -> bool:
        """Whether it is to be shown first, and open."""
        return bool(self.findings) or bool(self.why_not) or self.state != RecordState.INTACT.value


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One record in every channel: its size there, None where a channel has not got it."""

    name: str
    sizes: tuple[int | None, ...]
    outcome: str
    equal: bool
    dumps: tuple[tuple[str, tuple[HexRow, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelDiff:
    """All channels side by side."""

    channels: tuple[str, ...]
    lines: tuple[DiffLine, ...]

    @property
    def equal(self) -> bool:
        """Whether every channel holds the same bytes."""
        return all(line.equal for line in self.lines)


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Everything that a page shows of a cycle beyond its account."""

    console: tuple[tuple[str, str], ...]
    console_from: str
    records: tuple[RecordView, ...]
    diff: ChannelDiff | None


def region_flags(region: Region) -> str:
    """Name the flags of a region."""
    return ", ".join(name.lower().replace("_", " ") for name in flag_names(region.flags))


def _expected_of(cycle: CycleInput, record: Record, region: Region) -> bytes | None:
    manifest = cycle.manifest
    if manifest is None:
        return None
    for device in manifest.devices:
        if device.id == record.device_id:
            for wanted in device.regions:
                if wanted.index == region.index:
                    return planted_bytes(manifest.nonce, device, wanted, len(region.data))
    return None


def _marks(cycle: CycleInput, record: Record | None, findings: tuple[Finding, ...]) -> Marks:
    wrong: set[int] = set()
    expected: dict[int, int] = {}
    remarks: dict[int, str] = {}
    for region in () if record is None else record.regions:
        planted = None if record is None else _expected_of(cycle, record, region)
        if planted is None or region.data.startswith(planted):
            continue
        for i, (want, got) in enumerate(zip(planted, region.data, strict=False)):
            if want != got and len(wrong) < _MOST_MARKS:
                wrong.add(region.offset + i)
                expected[region.offset + i] = want
    for finding in findings:
        evidence = finding.evidence
        if evidence is None or evidence.offset is None:
            continue
        if finding.kind is FindingKind.TRUNCATED and evidence.wrong_bytes:
            remarks[evidence.offset] = (
                f"{evidence.wrong_bytes} bytes of region {visible(evidence.region or '')} "
                "are missing here"
            )
        elif evidence.offset not in wrong:
            remarks[evidence.offset] = visible(finding.message, limit=160)
            if evidence.wrong_bytes is not None:
                wrong.add(evidence.offset)
    return Marks(frozenset(wrong), expected, remarks)


def _facts(record: Record) -> tuple[tuple[str, str], ...]:
    facts = [
        ("state", record.state.value),
        ("form", record.form.value),
        ("boot id", record.boot_id),
        ("panic of this boot", str(record.sequence)),
        ("uptime", f"{record.uptime_ns / 1e9:.6f} s"),
        ("size", exact_size_text(record.record_size_bytes)),
        ("of which data", exact_size_text(record.data_size_bytes)),
    ]
    if record.flags:
        flags = flag_names(record.flags)
        facts.append(("flags", ", ".join(name.lower().replace("_", " ") for name in flags)))
    if record.error:
        facts.append(("error", str(record.error)))
    if record.release:
        facts.append(("kernel", f"{record.release}, build id {record.build_id or 'none'}"))
    if record.notice is not None:
        facts.append(
            (
                "ECC",
                f"{record.notice.corrected_bytes} bytes corrected, "
                f"{record.notice.bad_blocks} blocks beyond repair",
            )
        )
    facts += [("damage", f"{one.what} at {one.offset:#x}") for one in record.damages[:8]]
    return tuple(facts)


def _about(finding: Finding, path: str, record: Record | None) -> bool:
    if finding.verdict is Verdict.PASS or finding.evidence is None:
        return False
    if finding.evidence.file != path:
        return False
    if finding.device is None or record is None:
        return True
    return finding.device in (record.device, visible(record.device)) or (
        finding.driver == record.driver
    )


def _record(cycle: Cycle, name: str, path: str, data: bytes) -> RecordView:
    record: Record | None = None
    contents: Contents | None = None
    why_not = ""
    try:
        record = decode_record(data)
        if record.kind is RecordKind.CONTENTS and record.regions:
            contents = decode_contents(record.regions[0].data)
    except FormatError as error:
        why_not = str(error)
    findings = tuple(one for one in cycle.result.findings if _about(one, path, record))
    title = "no record"
    if record is not None:
        title = (
            "contents: every registered device, and what became of it"
            if record.kind is RecordKind.CONTENTS
            else f"{record.driver} / {record.device}"
        )
    return RecordView(
        name=name,
        title=title,
        state="not decoded" if record is None else record.state.value,
        why_not=why_not,
        facts=() if record is None else _facts(record),
        regions=() if record is None else record.regions,
        contents=contents,
        rows=tuple(hexdump(data, _marks(cycle.input, record, findings))),
        findings=findings,
        path=path,
        size_bytes=len(data),
    )


def _unreadable(capture: Capture, message: str) -> RecordView:
    return RecordView(
        capture.board_name, "not read", "not read", message, (), (), None, (), (), capture.path, 0
    )


def _records(
    cycle: Cycle, read: Callable[[Capture], bytes], channels: dict[str, dict[str, bytes]]
) -> tuple[RecordView, ...]:
    found: list[RecordView] = []
    files = [
        one
        for one in cycle.input.captures
        if one.paddr is None and one.board_name.startswith(_PREFIX)
    ]
    for capture in files:
        try:
            found.append(_record(cycle, capture.board_name, capture.path, read(capture)))
        except (FarmError, OSError) as error:
            message = error.message if isinstance(error, FarmError) else str(error)
            found.append(_unreadable(capture, message))
    if not files and channels:
        channel = next(iter(channels))
        path = next((one.path for one in cycle.input.captures if one.channel == channel), "")
        found += [_record(cycle, name, path, data) for name, data in channels[channel].items()]
    return tuple(sorted(found, key=lambda one: not one.wrong))


def _diff_line(name: str, channels: dict[str, dict[str, bytes]], room: bool) -> DiffLine:
    held = {channel: records.get(name) for channel, records in channels.items()}
    sizes = tuple(None if data is None else len(data) for data in held.values())
    there = {channel: data for channel, data in held.items() if data is not None}
    lacking = [channel for channel, data in held.items() if data is None]
    if len(set(there.values())) == 1:
        if not lacking:
            return DiffLine(name, sizes, "byte-identical", equal=True)
        return DiffLine(name, sizes, f"not in {', '.join(lacking)}", equal=False)
    pair = list(there.items())
    (first, ours) = pair[0]
    (second, theirs) = next(one for one in pair[1:] if one[1] != ours)
    wrong = [i for i, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b]
    differ = "1 byte differs" if len(wrong) == 1 else f"{len(wrong):,} bytes differ"
    outcome = f"{differ}, first at {wrong[0]:#x}"
    marks = Marks(frozenset(wrong[:_MOST_MARKS]))
    dumps = tuple(
        (channel, tuple(hexdump(data, marks)))
        for channel, data in ((first, ours), (second, theirs))
    )
    return DiffLine(name, sizes, outcome, equal=False, dumps=dumps if room else ())


def _channel_diff(channels: dict[str, dict[str, bytes]]) -> ChannelDiff | None:
    if len(channels) < 2:
        return None
    lines: list[DiffLine] = []
    for name in sorted(
        {name for records in channels.values() for name in records},
        key=lambda name: (len(name), name),
    ):
        shown = sum(bool(line.dumps) for line in lines)
        lines.append(_diff_line(name, channels, room=shown < _MOST_DIFFS))
    return ChannelDiff(tuple(channels), tuple(sorted(lines, key=lambda line: line.equal)))


def _console(folder: Path, cycle: CycleInput) -> tuple[tuple[tuple[str, str], ...], str]:
    if cycle.panic is not None and cycle.panic.panic_console_lines:
        return tuple(console_excerpt(cycle.panic)), "around the panic"
    try:
        with (folder / CONSOLE_NAME).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", errors="backslashreplace")
    except OSError:
        return (), "there is none"
    return tuple(marked_lines(text.splitlines()[-_TAIL_LINES:])), "its last lines"


def evidence_of(folder: Path, cycle: Cycle) -> EvidenceView:
    """Read what lies in a cycle's ``folder`` for its page; never raises for what is bad in it."""
    read = reader_for(folder)
    try:
        channels = channel_records(cycle.input, read)
    except (FarmError, OSError):
        channels = {}
    lines, where = _console(folder, cycle.input)
    return EvidenceView(
        console=lines,
        console_from=where,
        records=_records(cycle, read, channels),
        diff=_channel_diff(channels),
    )
