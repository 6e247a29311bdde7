"""What was found, for people: zones, files and records as a tree, bytes as a hexdump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.decode.findings import Findings, FoundRecord, MemoryFindings
from farm.decode.pstore_in_memory import FoundRegion
from farm.formats.contents import Contents, Walk
from farm.formats.layout import Damage, flag_names
from farm.formats.ramoops import PanicdumpZone, Zone
from farm.formats.record import Record, Region

if TYPE_CHECKING:
    from farm.decode.register_map import RegisterMaps

__all__ = ["show"]

# Columns of text; the others hold numbers.
_LEFT = frozenset({"zone", "name", "kind", "driver", "device", "outcome", "state", "what"})
_MOST_BLOCKS = 8
_MOST_LOG_BYTES = 4096


def show(found: Findings, maps: RegisterMaps | None, hexdump_bytes: int) -> None:
    """Print everything to standard output; no line is folded, whatever the terminal's width."""
    if found.memory is not None:
        _show_memory(found.memory, hexdump_bytes)
    for one in found.ramoops:
        _show_region(one, found)
    if found.single_zone is not None:
        _show_zone("panicdump", found.single_zone, found.single_zone.damages)
    if found.storage is not None:
        for kind, at in found.storage.zones:
            print(f"zone {kind} at {at:#x}")
        for stored in found.storage.files:
            print(f"  {stored.name}: {len(stored.data):,} bytes")
    for item in found.records:
        _show_found_record(item, maps, hexdump_bytes)
    if found.log is not None:
        text = found.log.text[:_MOST_LOG_BYTES]
        cut = f", the first {len(text):,} of them" if len(text) < len(found.log.text) else ""
        print(f"{found.log.what}, {len(found.log.text):,} bytes{cut}")
        print(_readable(text))
        print(found.log.notice.decode().strip())


def _readable(text: bytes) -> str:
    """Text of a board, safe to print: nothing in it reaches the terminal as a command."""
    return "".join(
        chr(byte) if 32 <= byte < 127 or byte in (9, 10) else f"\\x{byte:02x}"
        for byte in text.replace(b"\r\n", b"\n")
    )


def _hexdump(data: bytes, limit_bytes: int) -> None:
    for at in range(0, min(len(data), limit_bytes), 16):
        row = data[at : min(at + 16, limit_bytes)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        print(f"    {at:08x}  {row.hex(' ', 4):<36} {text}")
    if len(data) > limit_bytes:
        print(f"    ... {len(data) - limit_bytes:,} bytes more")


def _show_memory(one: MemoryFindings, hexdump_bytes: int) -> None:
    memory, kernel = one.memory, one.kernel
    print(f"memory, {memory.kind}: {memory.size_bytes:,} bytes")
    for segment in memory.segments[:64]:
        place = "at an unknown address" if segment.paddr is None else f"{segment.paddr:#x}"
        name = f" {segment.name}" if segment.name else ""
        print(f"  {place}+{segment.size_bytes:#x}{name}")
    info = kernel.vmcoreinfo
    if info is not None:
        moved = "" if kernel.moved is None else f", moved by {kernel.moved:#x}"
        print(f"  Linux {info.release}, build id {info.build_id or 'unknown'}{moved}")
    for oddity in kernel.oddities:
        print(f"  {oddity}")
    if one.table is None:
        print("  no panicdump table")
        return
    table = one.table
    devices = len({entry.device_id for entry in table.entries})
    print(
        f"panicdump table at {table.paddr:#x}, found by {table.how}: {devices} devices, "
        f"{len(table.entries)} regions, boot {table.table.boot_id}"
    )
    _show_damages(table.damages)
    rows = []
    for region in one.regions:
        entry = region.entry
        lost = sum(size for _, size in region.missing)
        rows.append(
            [
                str(entry.device_id),
                entry.driver,
                entry.device,
                entry.region,
                entry.kind.name.lower(),
                f"{entry.va:#x}",
                "-" if entry.pa is None else f"{entry.pa:#x}",
                f"{entry.size_bytes:,}",
                region.how + (f", {lost:,} bytes are not in the dump" if lost else ""),
            ]
        )
    heads = ["id", "driver", "device", "name", "kind", "va", "pa", "size", "what"]
    _table("", heads, rows)
    if hexdump_bytes:
        for region in one.regions:
            if region.data is not None:
                print(f"  {region.entry.device} {region.entry.region}")
                _hexdump(region.data, hexdump_bytes)


def _show_region(one: FoundRegion, found: Findings) -> None:
    sizes = one.region.sizes
    where = f" at {one.paddr:#x}" if one.paddr else ""
    parts = [
        f"{name} {size:#x}"
        for name, size in (
            ("record", sizes.record_size_bytes),
            ("panicdump", sizes.panicdump_size_bytes),
            ("console", sizes.console_size_bytes),
            ("pmsg", sizes.pmsg_size_bytes),
            ("ftrace", sizes.ftrace_size_bytes),
            ("ecc", sizes.ecc_size_bytes),
        )
        if size
    ]
    print(f"ramoops region{where}, layout from {one.how}: {', '.join(parts)}")
    layout = found.layout
    if layout is not None and (layout.doubtful or layout.explained < layout.predicted):
        lost = layout.predicted - layout.explained
        print(
            f"  the layout is inferred from {layout.explained} signatures, {lost} are missing"
            + ("; another one fits as well" if layout.doubtful else "")
            + ": give sizes or --dtb if it looks wrong"
        )
    files: dict[object, list[str]] = {file.zone: [] for file in found.files}
    for file in found.files:
        hidden = " (hidden behind an empty record)" if file.hidden else ""
        files[file.zone].append(f"{file.name}, {len(file.data):,} bytes{hidden}")
    empty: list[str] = []
    for zone in one.region.zones:
        if zone.zone.valid and not zone.zone.size and not zone.damages and not zone.frames:
            empty.append(zone.label)
            continue
        _show_zone(zone.label, zone.zone, zone.damages)
        for line in files.get(zone, ()):
            print(f"  {line}")
    if empty:
        count = f"{len(empty)} zones are" if len(empty) > 1 else "zone is"
        first_last = f"{empty[0]} to {empty[-1]}" if len(empty) > 1 else empty[0]
        print(f"{count} empty: {first_last}")
    for left in found.salvaged:
        if left.zone in one.region.zones:
            print(f"  left in zone {left.zone.label}: {len(left.data):,} bytes; {left.how}")


def _show_zone(label: str, zone: Zone | PanicdumpZone, damages: tuple[Damage, ...]) -> None:
    inner = zone.zone if isinstance(zone, PanicdumpZone) else zone
    state = f"{inner.size} of {inner.layout.data_bytes} bytes" if inner.valid else "not valid"
    state = state if inner.written else "no signature"
    ecc = f", ECC corrected {inner.corrected_symbols}" if inner.corrected_symbols else ""
    bad = f", {len(inner.bad_blocks)} blocks beyond repair" if inner.bad_blocks else ""
    print(f"zone {label}: {state}{ecc}{bad}")
    if inner.corrected_blocks:
        places = [f"{at:#x}: {count}" for at, count in inner.corrected_blocks[:_MOST_BLOCKS]]
        more = len(inner.corrected_blocks) - len(places)
        places += [f"{more} blocks more"] if more else []
        print(f"  corrected by block: {', '.join(places)}")
    _show_damages(damages)


def _show_found_record(item: FoundRecord, maps: RegisterMaps | None, hexdump_bytes: int) -> None:
    if item.frame:
        name = "-" if item.frame.ordinal is None else str(item.frame.ordinal)
        notes = [item.frame.state.name.lower()]
        if item.remains:
            notes.append("remains of an older panic")
        if not item.frame.header_intact:
            notes.append("frame header damaged")
        print(f"\nframe {name} at {item.frame.offset:#x}: {', '.join(notes)}")
    if item.record is not None:
        _show_record(item.record)
        for region in item.record.regions:
            _show_region_data(item.record, region, maps, hexdump_bytes)
    if item.contents is not None:
        _show_contents(item.contents)
    if item.why_not:
        print(f"  not decoded: {item.why_not}")


def _show_region_data(
    record: Record, region: Region, maps: RegisterMaps | None, hexdump_bytes: int
) -> None:
    rows = []
    for value in maps.values_of(record, region) if maps else ():
        fields = " ".join(f"{name}={number:#x}" for name, number in value.fields.items())
        was = f"was {value.before:#x}" if value.changed else ""
        mark = "*" if value.changed else ""
        rows.append([mark, f"{value.offset:#x}", value.name, f"{value.value:#x}", fields, was])
    if rows:
        heads = ["", "offset", "name", "value", "what", "state"]
        _table(f"  {region.name}", heads, rows)
    if hexdump_bytes and region.data:
        print(f"  {region.name}")
        _hexdump(region.data, hexdump_bytes)


def _table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """Columns side by side, of any number of rows; rich takes a millisecond for each of them."""
    if title:
        print(title)
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [head in _LEFT for head in heads]
    for line in lines:
        cells = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        )
        print("  ".join(cells).rstrip())


def _show_damages(damages: tuple[Damage, ...]) -> None:
    for damage in damages:
        length = "" if damage.length is None else f", {damage.length} bytes"
        print(f"  damage at {damage.offset:#x}{length}: {damage.what}")


def _show_record(record: Record) -> None:
    size = record.record_size_bytes
    print(f"{record.state.value.upper()}  {record.form.value} record, {size:,} bytes")
    flags = " ".join(flag_names(record.flags)).lower() or "-"
    build = f", Linux {record.release}, build id {record.build_id}" if record.release else ""
    print(f"  device {record.device} (id {record.device_id}), driver {record.driver}")
    print(
        f"  boot {record.boot_id}, panic {record.sequence}, record {record.index}, "
        f"flags {flags}, error {record.error}{build}"
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
    _table("  regions", heads, rows)
    if record.notice:
        print(
            f"  ramoops: ECC corrected {record.notice.corrected_bytes} bytes, "
            f"{record.notice.bad_blocks} blocks beyond repair"
        )
    _show_damages(record.damages)


def _show_contents(contents: Contents) -> None:
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
    _table(title, heads, rows)
    _show_damages(contents.damages)
