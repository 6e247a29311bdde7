"""Several channels, one panic: raw regions are decoded to records, and all are compared.

Records come from the raw bytes of a ramoops region as the kernel itself finds them there (FORMAT.md
section 7). What pstorefs adds to a file, the line about ECC, is taken off before comparing; ECC is
applied to raw bytes first, as the kernel does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from farm.errors import FarmError, FormatError
from farm.formats.ramoops import (
    FrameState,
    PanicdumpZone,
    RamoopsSizes,
    ZoneKind,
    decode_panicdump_zone,
    decode_zone,
    place_zones,
    signature_of,
)
from farm.formats.record import RecordState, decode_record
from farm.judge.case import zone_finding
from farm.judge.names import shown
from farm.model import Capture, CycleInput, Finding, FindingKind, Manifest, Ramoops, Verdict

__all__ = ["TABLE", "Channels", "channel_records", "read_channels"]

TABLE = "table"

PSTOREFS = "pstorefs"
_PREFIX = "panicdump-"
_ECC_LINE = re.compile(rb"\nECC: [^\n]*\n")

ReadCapture = Callable[[Capture], bytes]


@dataclass(frozen=True, slots=True)
class Channels:
    """``captures`` are what the rest of the judge is to look at, ``read`` reads them."""

    captures: tuple[Capture, ...]
    read: ReadCapture
    findings: tuple[Finding, ...] = ()
    corrected_symbols: int = 0


def _sizes(ramoops: Ramoops) -> RamoopsSizes:
    return RamoopsSizes(
        mem_size_bytes=ramoops.mem_size_bytes,
        record_size_bytes=ramoops.record_size_bytes,
        panicdump_size_bytes=ramoops.panicdump_size_bytes,
        console_size_bytes=ramoops.console_size_bytes,
        pmsg_size_bytes=ramoops.pmsg_size_bytes,
        ftrace_size_bytes=ramoops.ftrace_size_bytes,
        ecc_size_bytes=ramoops.ecc_size_bytes,
    )


def zone_span(ramoops: Ramoops) -> tuple[int, int, int]:
    """(physical address, size, ECC bytes) of the panicdump zone; the size is 0 without one.

    Raises UsageError when the sizes do not fit the region.
    """
    ecc = ramoops.ecc_size_bytes
    for place in place_zones(_sizes(ramoops)):
        if place.kind is ZoneKind.PANICDUMP:
            return ramoops.mem_address + place.offset, place.size_bytes, ecc
    return ramoops.mem_address, 0, ecc


def _records(zone: PanicdumpZone, backend: str) -> dict[str, bytes]:
    """The records of a zone by the names that pstorefs gives them."""
    frames = [one for one in zone.frames if one.within or not zone.zone.valid]
    found: dict[str, bytes] = {}
    for number, one in enumerate(frames):
        if one.state == FrameState.ERASED:
            continue
        # A frame without an ordinal is one that the kernel shows no file of.
        name = f"{_PREFIX}{backend}-{number if one.ordinal is None else one.ordinal}"
        found[name if name not in found else f"{name} at {one.offset:#x}"] = one.data
    return found


def _normal(data: bytes, record: bytes) -> bytes:
    """``data`` without what pstorefs puts behind the record."""
    if data[: len(record)] == record and _ECC_LINE.fullmatch(data, len(record)):
        return record
    lines = list(_ECC_LINE.finditer(data))
    return data[: lines[-1].start()] if lines and lines[-1].end() == len(data) else data


def _intact(data: bytes) -> bool:
    try:
        return decode_record(data).state is RecordState.INTACT
    except FormatError:
        return False


def _lost(cycle: CycleInput, captured: set[str]) -> list[Finding]:
    """Raw channels that were read, and of which no capture is there any more."""
    return [
        zone_finding(
            FindingKind.CAPTURE_INCOMPLETE,
            Verdict.ERROR,
            f"{shown(read.channel)} was read, but its capture is not there",
        )
        for read in cycle.channels
        if read.channel not in (PSTOREFS, TABLE) and read.channel not in captured
    ]


def _stand_in(finding: Finding) -> Capture:
    return Capture(
        channel=PSTOREFS,
        board_name=f"{_PREFIX}zone",
        path="",
        size_bytes=0,
        sha256="",
        complete=False,
        note=finding.message,
    )


def read_channels(cycle: CycleInput, read_capture: ReadCapture) -> Channels:
    """Decode the raw captures of ``cycle`` and compare all channels; never raises for bad bytes."""
    raw = [
        one
        for one in cycle.captures
        if one.paddr is not None and not one.ground_truth and one.channel != TABLE
    ]
    files_only = tuple(one for one in cycle.captures if one.paddr is None)
    manifest = cycle.manifest
    findings = _lost(cycle, {one.channel for one in raw})
    if not raw or manifest is None or manifest.ramoops is None:
        if findings and not any(one.channel == PSTOREFS for one in cycle.channels):
            # What nobody has read any more says nothing of the records.
            return Channels(
                (*files_only, _stand_in(findings[0])),
                lambda capture: read_capture(capture) if capture.path else b"",
            )
        return Channels(files_only, read_capture, findings=tuple(findings))
    by_channel: dict[str, dict[str, bytes]] = {}
    files: dict[str, Capture] = {}
    symbols = 0
    asked = any(one.channel == PSTOREFS for one in cycle.captures)
    asked = asked or any(one.channel == PSTOREFS for one in cycle.channels)
    ordinary = _ordinary(cycle.captures, read_capture) if asked else None
    for capture in raw:
        files[capture.channel] = capture
        try:
            found, corrected = _decoded(
                capture,
                manifest,
                read_capture(capture),
                findings,
                shown_by_kernel=bool(ordinary),
            )
        except (FarmError, OSError) as error:
            message = error.message if isinstance(error, FarmError) else str(error)
            findings.append(_incomplete(capture, message))
            continue
        symbols = max(symbols, corrected)
        if found is not None:
            by_channel[capture.channel] = found
    derived, contents = _derived(asked, files, by_channel)
    if not asked and not by_channel:
        # Nobody has read the records whole: that none was found says nothing.
        return _unread(raw, files_only, read_capture, findings)
    if ordinary is not None:
        by_channel = {PSTOREFS: ordinary, **by_channel}
    findings += _compare(by_channel, files)

    def read(capture: Capture) -> bytes:
        own = contents.get((capture.path, capture.board_name))
        return read_capture(capture) if own is None else own

    return Channels((*files_only, *derived), read, tuple(findings), symbols)


def channel_records(cycle: CycleInput, read_capture: ReadCapture) -> dict[str, dict[str, bytes]]:
    """Every channel's records by the names that pstorefs gives them, fit to be held together.

    What pstorefs adds to a file is taken off; a channel that cannot be decoded is left out.
    """
    found: dict[str, dict[str, bytes]] = {}
    asked = any(one.channel == PSTOREFS for one in cycle.captures)
    if asked or any(one.channel == PSTOREFS for one in cycle.channels):
        files = _ordinary(cycle.captures, read_capture)
        if files is not None:
            found[PSTOREFS] = files
    manifest = cycle.manifest
    for capture in cycle.captures:
        if capture.paddr is None or capture.ground_truth or capture.channel == TABLE:
            continue
        if manifest is None or manifest.ramoops is None:
            continue
        try:
            records, _ = _decoded(
                capture, manifest, read_capture(capture), [], shown_by_kernel=False
            )
        except (FarmError, OSError):
            continue
        if records is not None:
            found[capture.channel] = records
    raw = [records for channel, records in found.items() if channel != PSTOREFS]
    if raw and PSTOREFS in found:
        found[PSTOREFS] = {
            name: _normal(data, raw[0].get(name, b"")) for name, data in found[PSTOREFS].items()
        }
    return found


def _incomplete(capture: Capture, message: str) -> Finding:
    return zone_finding(
        FindingKind.CAPTURE_INCOMPLETE,
        Verdict.ERROR,
        f"capture incomplete ({shown(capture.channel)}): {shown(message)}",
        file=capture.path,
    )


def _decoded(
    capture: Capture,
    manifest: Manifest,
    data: bytes,
    findings: list[Finding],
    *,
    shown_by_kernel: bool,
) -> tuple[dict[str, bytes] | None, int]:
    """The records that a raw capture holds, None without the zone; and the symbols corrected."""
    assert manifest.ramoops is not None
    assert capture.paddr is not None
    start, size, ecc = zone_span(manifest.ramoops)
    offset = start - capture.paddr
    if not size or offset < 0 or offset + size > len(data) or not capture.complete:
        message = capture.note or f"it has not all of {size} bytes at {start:#x}"
        findings.append(_incomplete(capture, message))
        return None, 0
    zone = decode_panicdump_zone(data[offset : offset + size], ecc)
    records = _records(zone, manifest.backend)
    if not zone.zone.valid:
        if not records and _wiped(capture, manifest.ramoops, data):
            message = (
                "no zone of the region has its signature, which the running kernel had written: "
                "the memory lost its content, or this is not the region"
            )
            findings.append(_incomplete(capture, message))
            return None, 0
        findings.append(
            zone_finding(
                FindingKind.HEADER_LOST,
                # The kernel needs the header more than this channel: where it found its records,
                # the header is in memory.
                Verdict.ERROR if shown_by_kernel else Verdict.FAIL,
                f"the zone's header is lost in what {shown(capture.channel)} read; "
                f"{len(records)} records were found behind it",
                file=capture.path,
                offset=offset,
            )
        )
    elif zone.zone.corrected_symbols:
        symbols = zone.zone.corrected_symbols
        findings.append(
            zone_finding(
                FindingKind.ECC_CORRECTED,
                Verdict.PASS,
                f"ECC corrected {symbols} symbols of the zone read by {shown(capture.channel)}",
                file=capture.path,
                offset=offset,
            )
        )
    return records, zone.zone.corrected_symbols


def _wiped(capture: Capture, ramoops: Ramoops, data: bytes) -> bool:
    """Whether no zone of the captured region is one: ramoops signs them all when it starts."""
    assert capture.paddr is not None
    for place in place_zones(_sizes(ramoops)):
        at = ramoops.mem_address + place.offset - capture.paddr
        if at < 0 or at + place.size_bytes > len(data):
            continue
        zone = decode_zone(
            data[at : at + place.size_bytes], ramoops.ecc_size_bytes, signature_of(place.kind)
        )
        if zone.written:
            return False
    return True


def _derived(
    asked: bool, files: dict[str, Capture], by_channel: dict[str, dict[str, bytes]]
) -> tuple[list[Capture], dict[tuple[str, str], bytes]]:
    """Captures made of a raw channel's records, when pstorefs was not asked."""
    if asked or not by_channel:
        return [], {}
    channel = next(iter(by_channel))
    file = files[channel]
    made, contents = [], {}
    for name, data in by_channel[channel].items():
        made.append(
            Capture(
                channel=channel,
                board_name=name,
                path=file.path,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
        contents[file.path, name] = data
    return made, contents


def _unread(
    raw: list[Capture],
    files_only: tuple[Capture, ...],
    read_capture: ReadCapture,
    findings: list[Finding],
) -> Channels:
    """Let an incomplete capture stand for the records that no channel has read."""
    reasons = {one.evidence.file: one.message for one in findings if one.evidence is not None}
    paths = {one.path for one in raw}
    stand_ins = [
        one.model_copy(
            update={
                "board_name": f"{_PREFIX}zone",
                "complete": False,
                "note": reasons.get(one.path, "not read"),
                "paddr": None,
            }
        )
        for one in raw
    ]
    return Channels(
        (*files_only, *stand_ins),
        lambda capture: b"" if capture.path in paths else read_capture(capture),
    )


def _ordinary(captures: tuple[Capture, ...], read_capture: ReadCapture) -> dict[str, bytes] | None:
    """What pstorefs gave, by name; None when not all is there."""
    chosen = [one for one in captures if one.channel == PSTOREFS]
    if not all(one.complete for one in chosen):
        return None
    try:
        return {
            one.board_name: read_capture(one)
            for one in chosen
            if one.board_name.startswith(_PREFIX)
        }
    except (FarmError, OSError):
        return None


def _compare(by_channel: dict[str, dict[str, bytes]], files: dict[str, Capture]) -> list[Finding]:
    """Hold every channel against the first one, record by record."""
    if len(by_channel) < 2:
        return []
    reference, *others = by_channel
    findings: list[Finding] = []
    for channel in others:
        ours, theirs = by_channel[reference], by_channel[channel]
        for name in sorted({*ours, *theirs}):
            if (finding := _difference(name, reference, ours, channel, theirs)) is not None:
                findings.append(
                    finding
                    if channel not in files
                    else finding.model_copy(
                        update={"message": f"{finding.message} ({files[channel].path})"}
                    )
                )
    if not findings:
        count = len(by_channel[reference])
        findings.append(
            zone_finding(
                FindingKind.CHANNELS_AGREE,
                Verdict.PASS,
                f"{', '.join(by_channel)}: {count} records, byte-identical",
            )
        )
    return findings


def _difference(
    name: str,
    reference: str,
    ours: dict[str, bytes],
    channel: str,
    theirs: dict[str, bytes],
) -> Finding | None:
    first, second = ours.get(name), theirs.get(name)
    if first is None or second is None:
        have, lack = (channel, reference) if first is None else (reference, channel)
        return _disagreement(
            f"{shown(name)}: {shown(have)} has it, {shown(lack)} has not", Verdict.ERROR
        )
    first, second = _normal(first, second), _normal(second, first)
    if first == second:
        return None
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    at = min(len(first), len(second)) if at is None else at
    wrong = sum(a != b for a, b in zip(first, second, strict=False))
    wrong += abs(len(first) - len(second))
    good = [one for one, data in ((reference, first), (channel, second)) if _intact(data)]
    verdict = Verdict.ERROR
    if len(good) == 1:
        why = f"the CRC says that {shown(good[0])} is right"
        if good[0] != reference and reference == PSTOREFS:
            verdict = Verdict.FAIL
            why += ": the kernel handed out other bytes than memory holds"
    else:
        why = "the CRC says that both are right" if good else "the CRC says that neither is right"
    return _disagreement(
        f"{shown(name)}: {shown(channel)} differs from {shown(reference)} in {wrong} bytes, "
        f"first at {at:#x}; {why}",
        verdict,
    )


def _disagreement(message: str, verdict: Verdict) -> Finding:
    return zone_finding(FindingKind.CHANNELS_DISAGREE, verdict, message)
