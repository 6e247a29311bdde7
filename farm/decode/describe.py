"""What was decoded, as plain values for JSON.

Region data is not in it, only its size and SHA-256; names are escaped as in `layout.printable`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from farm.decode.extract import ExtractedRegion
from farm.decode.findings import Findings, FoundRecord, MemoryFindings
from farm.decode.pstore_in_memory import FoundRegion
from farm.formats.contents import Contents
from farm.formats.layout import Damage, flag_names
from farm.formats.ramoops import Frame, PanicdumpZone, Zone
from farm.formats.record import Record, Region

if TYPE_CHECKING:
    from farm.decode.register_map import RegisterMaps

__all__ = [
    "describe_contents",
    "describe_findings",
    "describe_frame",
    "describe_record",
    "describe_zone",
]


def _damages(damages: tuple[Damage, ...]) -> list[dict[str, Any]]:
    return [{"offset": d.offset, "length": d.length, "what": d.what} for d in damages]


def _region(region: Region) -> dict[str, Any]:
    return {
        "index": region.index,
        "name": region.name,
        "kind": region.kind.name.lower(),
        "va": f"{region.va:#x}",
        "pa": None if region.pa is None else f"{region.pa:#x}",
        "size_bytes": region.size_bytes,
        "note_type": region.note_type,
        "offset": region.offset,
        "saved_bytes": region.saved_bytes,
        "flags": [name.lower() for name in flag_names(region.flags)],
        "width_bytes": region.width_bytes,
        "stride_bytes": region.stride_bytes,
        "error": region.error,
        "crc": f"{region.crc:#010x}",
        "crc_ok": region.crc_ok,
        "sha256": hashlib.sha256(region.data).hexdigest(),
    }


def describe_record(record: Record) -> dict[str, Any]:
    """A record with its regions and damages."""
    notice = record.notice
    return {
        "form": record.form.value,
        "state": record.state.value,
        "kind": record.kind.name.lower(),
        "flags": [name.lower() for name in flag_names(record.flags)],
        "driver": record.driver,
        "device": record.device,
        "device_id": record.device_id,
        "index": record.index,
        "boot_id": record.boot_id,
        "sequence": record.sequence,
        "time_ns": record.time_ns,
        "uptime_ns": record.uptime_ns,
        "error": record.error,
        "priority": record.priority,
        "release": record.release,
        "build_id": record.build_id,
        "machine": record.machine,
        "data_size_bytes": record.data_size_bytes,
        "record_size_bytes": record.record_size_bytes,
        "regions": [_region(region) for region in record.regions],
        "damages": _damages(record.damages),
        "ecc_notice": None
        if notice is None
        else {"corrected_bytes": notice.corrected_bytes, "bad_blocks": notice.bad_blocks},
        "trailing_bytes": len(record.trailing),
    }


def describe_contents(contents: Contents) -> dict[str, Any]:
    """The contents table."""
    return {
        "nr_devices": contents.nr_devices,
        "nr_records": contents.nr_records,
        "on_overflow": contents.on_overflow.name.lower(),
        "capacity_bytes": contents.capacity_bytes,
        "used_bytes": contents.used_bytes,
        "format": contents.format.name.lower(),
        "walk": contents.walk.name.lower(),
        "entries": [
            {
                "device_id": entry.device_id,
                "driver": entry.driver,
                "device": entry.device,
                "outcome": entry.outcome.name.lower(),
                "index": entry.index,
                "error": entry.error,
                "needed_bytes": entry.needed_bytes,
                "saved_bytes": entry.saved_bytes,
            }
            for entry in contents.entries
        ],
        "damages": _damages(contents.damages),
    }


def describe_frame(frame: Frame) -> dict[str, Any]:
    """A frame of the panicdump zone, without its record."""
    return {
        "ordinal": frame.ordinal,
        "offset": frame.offset,
        "size_bytes": len(frame.data),
        "state": frame.state.name.lower(),
        "within": frame.within,
        "header_intact": frame.header_intact,
        "bad_blocks": list(frame.bad_blocks),
    }


def describe_zone(zone: Zone | PanicdumpZone) -> dict[str, Any]:
    """A zone's header and ECC, without its content."""
    damages = zone.damages
    if isinstance(zone, PanicdumpZone):
        zone = zone.zone
    return {
        "size_bytes": zone.size_bytes,
        "signature": f"{zone.signature:#010x}",
        "start": zone.start,
        "size": zone.size,
        "written": zone.written,
        "valid": zone.valid,
        "capacity_bytes": zone.layout.data_bytes,
        "corrected_symbols": zone.corrected_symbols,
        "corrected_blocks": [
            {"offset": offset, "symbols": symbols} for offset, symbols in zone.corrected_blocks
        ],
        "bad_blocks": list(zone.bad_blocks),
        "damages": _damages(damages),
    }


def _record(item: FoundRecord, maps: RegisterMaps | None) -> dict[str, Any]:
    entry: dict[str, Any] = {} if item.record is None else describe_record(item.record)
    if item.record is not None:
        entry["registers"] = [
            {
                "region": region.name,
                "offset": value.offset,
                "name": value.name,
                "value": f"{value.value:#x}",
                "fields": value.fields,
                "before": None if value.before is None else f"{value.before:#x}",
                "changed": value.changed,
            }
            for region in item.record.regions
            for value in (maps.values_of(item.record, region) if maps else ())
        ]
    entry["frame"] = None if item.frame is None else describe_frame(item.frame)
    entry["contents"] = None if item.contents is None else describe_contents(item.contents)
    entry["not_decoded"] = item.why_not or None
    entry["damaged"] = item.damaged
    return entry


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ramoops(one: FoundRegion) -> dict[str, Any]:
    sizes = one.region.sizes
    return {
        "paddr": f"{one.paddr:#x}",
        "layout_from": one.how,
        "sizes": {
            name.removesuffix("_bytes"): getattr(sizes, name) for name in type(sizes).__slots__
        },
        "linux_version": one.region.linux_version and ".".join(map(str, one.region.linux_version)),
    }


def _extracted(one: ExtractedRegion) -> dict[str, Any]:
    entry = one.entry
    return {
        "device_id": entry.device_id,
        "driver": entry.driver,
        "device": entry.device,
        "region": entry.region,
        "index": entry.region_index,
        "kind": entry.kind.name.lower(),
        "va": f"{entry.va:#x}",
        "pa": None if entry.pa is None else f"{entry.pa:#x}",
        "size_bytes": entry.size_bytes,
        "stable": entry.stable,
        "found": one.data is not None,
        "how": one.how,
        "missing": [{"offset": offset, "length": size} for offset, size in one.missing],
        "sha256": None if one.data is None else _sha(one.data),
    }


def _memory(one: MemoryFindings) -> dict[str, Any]:
    kernel, table = one.kernel, one.table
    info = kernel.vmcoreinfo
    return {
        "kind": one.memory.kind,
        "size_bytes": one.memory.size_bytes,
        "segments": [
            {
                "paddr": None if segment.paddr is None else f"{segment.paddr:#x}",
                "size_bytes": segment.size_bytes,
                "name": segment.name or None,
            }
            for segment in one.memory.segments
        ],
        "release": info.release if info else None,
        "build_id": info.build_id if info else None,
        "kernel_offset": None if kernel.moved is None else f"{kernel.moved:#x}",
        "oddities": kernel.oddities,
        "table": None
        if table is None
        else {
            "paddr": f"{table.paddr:#x}",
            "found_by": table.how,
            "boot_id": table.table.boot_id,
            "entries": table.table.nr_entries,
            "damages": _damages(table.damages),
        },
        "regions": [_extracted(region) for region in one.regions],
    }


def describe_findings(found: Findings, maps: RegisterMaps | None) -> dict[str, Any]:
    """Everything, as `farm decode --json` prints it."""
    zones = [
        {"zone": zone.label, **describe_zone(zone.zone), "damages": _damages(zone.damages)}
        for one in found.ramoops
        for zone in one.region.zones
    ]
    if found.single_zone is not None:
        zones = [{"zone": "panicdump", **describe_zone(found.single_zone)}]
    files = [
        {
            "name": file.name,
            "size_bytes": len(file.data),
            "notice_bytes": file.notice_bytes,
            "time_s": file.time_s,
            "time_us": file.time_us,
            "still_compressed": file.still_compressed,
            "hidden": file.hidden,
            "sha256": _sha(file.data),
        }
        for file in found.files
    ]
    if found.storage is not None:
        zones = [{"zone": kind, "offset": at} for kind, at in found.storage.zones]
        files = [
            {"name": file.name, "size_bytes": len(file.data), "sha256": _sha(file.data)}
            for file in found.storage.files
        ]
    layout = found.layout
    return {
        "kind": found.kind,
        "damaged": found.damaged,
        "ramoops": [_ramoops(one) for one in found.ramoops],
        "layout": None
        if layout is None
        else {
            "explained": layout.explained,
            "seen": layout.seen,
            "predicted": layout.predicted,
            "doubtful": layout.doubtful,
        },
        "zones": zones,
        "files": files,
        "salvaged": [
            {"zone": one.zone.label, "size_bytes": len(one.data), "how": one.how}
            for one in found.salvaged
        ],
        "records": [_record(item, maps) for item in found.records],
        "log": None
        if found.log is None
        else {
            "text": found.log.text.decode(errors="backslashreplace"),
            "notice": found.log.notice.decode(),
        },
        "memory": None if found.memory is None else _memory(found.memory),
    }
