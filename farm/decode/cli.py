"""``farm decode``: the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.decode.describe import (
    describe_contents,
    describe_frame,
    describe_record,
    describe_zone,
)
from farm.errors import FormatError, UsageError
from farm.formats.contents import Contents, Walk, decode_contents
from farm.formats.layout import Damage, flag_names
from farm.formats.ramoops import (
    PANICDUMP_SIGNATURE,
    Frame,
    FrameState,
    PanicdumpZone,
    RamoopsSizes,
    Zone,
    ZoneKind,
    decode_panicdump_zone,
    decode_zone,
    place_zones,
    signature_of,
)
from farm.formats.record import Record, RecordKind, RecordState, decode_record

EXIT_DAMAGED = 1
PLAIN_COLUMNS = 200

_SIZE_KEYS = {
    "mem_size": "mem_size_bytes",
    "record_size": "record_size_bytes",
    "panicdump_size": "panicdump_size_bytes",
    "console_size": "console_size_bytes",
    "pmsg_size": "pmsg_size_bytes",
    "ftrace_size": "ftrace_size_bytes",
    "ecc_size": "ecc_size_bytes",
    "ftrace_zones": "ftrace_zones",
}
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class _FoundRecord:
    """A record of the file; `frame` is None when the file is the record."""

    record: Record | None
    why_not: str = ""
    contents: Contents | None = None
    frame: Frame | None = None
    remains: bool = False

    @property
    def damaged(self) -> bool:
        """Whether this speaks against the file: remains and unlinked records do not."""
        if self.frame and (self.frame.state is FrameState.ERASED or self.remains):
            return False
        return (
            self.record is None
            or self.record.state is not RecordState.INTACT
            or (self.contents is not None and bool(self.contents.damages))
            or bool(self.why_not)
        )


@dataclass
class _Found:
    """All that the file holds."""

    zones: list[tuple[str, Zone | PanicdumpZone]] = field(default_factory=list)
    records: list[_FoundRecord] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        return any(zone.damages for _, zone in self.zones) or any(r.damaged for r in self.records)


def decode_command(
    file: Annotated[Path, typer.Argument(help="A file of pstorefs, a zone or a ramoops region.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    extract: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each region's data to a file in DIR."),
    ] = None,
    ramoops: Annotated[
        str,
        typer.Option(
            metavar="SIZES",
            help="The file is a whole ramoops region with these sizes: "
            "record_size=8K,panicdump_size=512K,console_size=128K,... as the kernel was given.",
        ),
    ] = "",
    ecc_size: Annotated[
        int | None,
        typer.Option(help="The file is one panicdump zone with so many bytes of ECC per block."),
    ] = None,
) -> None:
    """Show what panicdump left in a file, and whether it is intact.

    Exit code 0: intact; 1: something in it is damaged; 2: it holds nothing of panicdump.
    """
    if ramoops and ecc_size is not None:
        raise UsageError("--ecc-size is for a single zone; with --ramoops write ecc_size=N")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    try:
        if ramoops:
            found = _from_region(data, parse_sizes(ramoops, len(data)))
        elif ecc_size is not None or data[:4] == PANICDUMP_SIGNATURE.to_bytes(4, "little"):
            found = _from_zone(data, ecc_size or 0)
        else:
            found = _Found(records=[_open(data)])
    except FormatError as error:
        raise FormatError(
            f"{file}: offset {error.offset}: {error.message}",
            offset=error.offset,
            next_step=error.next_step,
        ) from error
    if extract is not None:
        _extract(found, extract)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if not console.is_terminal:
            # A file or a pipe has no edge at which names would have to be folded.
            console.width = max(console.width, PLAIN_COLUMNS)
        _show(found, console)
    if found.damaged:
        raise typer.Exit(EXIT_DAMAGED)


def parse_sizes(text: str, file_bytes: int) -> RamoopsSizes:
    """Read "record_size=8K,ecc_size=16,..."; mem_size is the file's when not given.

    Raises UsageError on what is no size, and when the file is shorter than mem_size.
    """
    values: dict[str, int] = {"mem_size_bytes": file_bytes}
    for item in text.split(","):
        key, _, value = item.strip().partition("=")
        if key not in _SIZE_KEYS:
            raise UsageError(f"--ramoops: {key!r}: possible are {', '.join(_SIZE_KEYS)}")
        digits, unit = (value[:-1], value[-1:].lower()) if value[-1:].isalpha() else (value, "")
        if value.lower().startswith("0x"):
            digits, unit = value, ""
        try:
            values[_SIZE_KEYS[key]] = int(digits, 0) * (_UNITS[unit] if unit else 1)
        except (ValueError, KeyError):
            raise UsageError(f"--ramoops: {item.strip()!r} is not a size") from None
    if values["mem_size_bytes"] > file_bytes:
        raise UsageError(
            f"--ramoops: mem_size {values['mem_size_bytes']}, the file has {file_bytes} bytes"
        )
    return RamoopsSizes(**values)


def _open(data: bytes, frame: Frame | None = None, *, remains: bool = False) -> _FoundRecord:
    record = decode_record(data)
    contents, why_not = None, ""
    if record.kind is RecordKind.CONTENTS:
        try:
            contents = decode_contents(record.regions[0].data if record.regions else b"")
        except FormatError as error:
            why_not = f"contents: {error.message}"
    return _FoundRecord(record, why_not, contents, frame, remains)


def _from_zone(data: bytes, ecc_size: int) -> _Found:
    zone = decode_panicdump_zone(data, ecc_size)
    if not zone.zone.written and not zone.frames:
        raise FormatError("not a panicdump zone, and no frame of one in it", offset=0)
    return _Found([("panicdump", zone)], list(_records_of(zone)))


def _records_of(zone: PanicdumpZone) -> Iterator[_FoundRecord]:
    for frame in zone.frames:
        # With a valid header, what lies behind the valid bytes is an older panic's.
        remains = zone.zone.valid and not frame.within
        try:
            yield _open(frame.data, frame, remains=remains)
        except FormatError as error:
            yield _FoundRecord(None, error.message, None, frame, remains)


def _from_region(data: bytes, sizes: RamoopsSizes) -> _Found:
    found = _Found()
    something = False
    for place in place_zones(sizes):
        piece = data[place.offset : place.offset + place.size_bytes]
        label = f"{place.kind.value} {place.index}"
        if place.kind is ZoneKind.PANICDUMP:
            zone = decode_panicdump_zone(piece, sizes.ecc_size_bytes)
            found.zones.append((label, zone))
            found.records += _records_of(zone)
            something |= zone.zone.written or bool(zone.frames)
        else:
            other = decode_zone(piece, sizes.ecc_size_bytes, signature_of(place.kind))
            found.zones.append((label, other))
            something |= other.written
    if not something:
        raise FormatError("no zone with such sizes has a signature", offset=0)
    return found


def _extract(found: _Found, folder: Path) -> None:
    """Write region data to files named by ordinal: what a board calls things is never a path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, item in enumerate(found.records):
            for region in item.record.regions if item.record else ():
                path = folder / f"record-{number}-region-{region.index}.bin"
                with path.open("xb") as out:
                    out.write(region.data)
    except FileExistsError as error:
        raise UsageError(f"{error.filename} exists already", "Name an empty folder.") from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def _as_json(found: _Found) -> dict[str, Any]:
    records = []
    for item in found.records:
        entry: dict[str, Any] = {} if item.record is None else describe_record(item.record)
        entry["frame"] = None if item.frame is None else describe_frame(item.frame)
        entry["contents"] = None if item.contents is None else describe_contents(item.contents)
        entry["not_decoded"] = item.why_not or None
        entry["damaged"] = item.damaged
        records.append(entry)
    return {
        "damaged": found.damaged,
        "zones": [{"zone": label, **describe_zone(zone)} for label, zone in found.zones],
        "records": records,
    }


def _table(console: Console, title: str, heads: list[str], rows: list[list[str]]) -> None:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for head in heads:
        left = head in ("zone", "name", "kind", "driver", "device", "outcome", "state", "what")
        table.add_column(head, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _show_damages(console: Console, damages: tuple[Damage, ...]) -> None:
    for damage in damages:
        length = "" if damage.length is None else f", {damage.length} bytes"
        console.print(Text(f"  damage at {damage.offset:#x}{length}: {damage.what}"))


def _show(found: _Found, console: Console) -> None:
    for label, zone in found.zones:
        inner = zone.zone if isinstance(zone, PanicdumpZone) else zone
        state = f"{inner.size} of {inner.layout.data_bytes} bytes" if inner.valid else "not valid"
        state = state if inner.written else "no signature"
        ecc = f", ECC corrected {inner.corrected_symbols}" if inner.corrected_symbols else ""
        bad = f", {len(inner.bad_blocks)} blocks beyond repair" if inner.bad_blocks else ""
        console.print(Text(f"zone {label}: {state}{ecc}{bad}"))
        _show_damages(console, zone.damages)
    for item in found.records:
        if item.frame:
            name = "-" if item.frame.ordinal is None else str(item.frame.ordinal)
            notes = [item.frame.state.name.lower()]
            if item.remains:
                notes.append("remains of an older panic")
            if not item.frame.header_intact:
                notes.append("frame header damaged")
            console.print(Text(f"\nframe {name} at {item.frame.offset:#x}: {', '.join(notes)}"))
        if item.record is not None:
            _show_record(console, item.record)
        if item.contents is not None:
            _show_contents(console, item.contents)
        if item.why_not:
            console.print(Text(f"  not decoded: {item.why_not}"))


def _show_record(console: Console, record: Record) -> None:
    size = record.record_size_bytes
    console.print(Text(f"{record.state.value.upper()}  {record.form.value} record, {size:,} bytes"))
    flags = " ".join(flag_names(record.flags)).lower() or "-"
    build = f", Linux {record.release}, build id {record.build_id}" if record.release else ""
    console.print(Text(f"  device {record.device} (id {record.device_id}), driver {record.driver}"))
    console.print(
        Text(
            f"  boot {record.boot_id}, panic {record.sequence}, record {record.index}, "
            f"flags {flags}, error {record.error}{build}"
        )
    )
    rows = [
        [
            str(region.index),
            region.name,
            region.kind.name.lower(),
            f"{region.va:#x}",
            "-" if region.pa is None else f"{region.pa:#x}",
            f"{region.size_bytes:,}",
            f"{region.saved_bytes:,}",
            "ok" if region.crc_ok else "WRONG",
            " ".join(flag_names(region.flags)).lower() or "-",
        ]
        for region in record.regions
    ]
    heads = ["#", "name", "kind", "va", "pa", "size", "saved", "crc", "flags"]
    _table(console, "  regions", heads, rows)
    if record.notice:
        console.print(
            Text(
                f"  ramoops: ECC corrected {record.notice.corrected_bytes} bytes, "
                f"{record.notice.bad_blocks} blocks beyond repair"
            )
        )
    _show_damages(console, record.damages)


def _show_contents(console: Console, contents: Contents) -> None:
    rows = [
        [
            str(entry.device_id),
            entry.driver,
            entry.device,
            entry.outcome.name.lower().replace("_", " "),
            "-" if entry.index is None else str(entry.index),
            f"{entry.needed_bytes:,}",
            f"{entry.saved_bytes:,}",
            str(entry.error),
        ]
        for entry in contents.entries
    ]
    title = (
        f"  contents: {contents.nr_records} records of {contents.nr_devices} devices, "
        f"{contents.used_bytes:,} of {contents.capacity_bytes:,} bytes used, "
        f"on overflow {contents.on_overflow.name.lower()}"
    )
    if contents.walk is not Walk.COMPLETE:
        title += ", cut short: devices that were not reached may have records"
    heads = ["id", "driver", "device", "outcome", "record", "needed", "saved", "error"]
    _table(console, title, heads, rows)
    _show_damages(console, contents.damages)
