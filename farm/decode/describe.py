"""What was decoded, as plain values for JSON.

Region data is not in it, only its size and SHA-256; names are escaped as in `layout.printable`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from farm.formats.contents import Contents
from farm.formats.layout import Damage, flag_names
from farm.formats.ramoops import Frame, PanicdumpZone, Zone
from farm.formats.record import Record, Region

__all__ = ["describe_contents", "describe_frame", "describe_record", "describe_zone"]


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
        "bad_blocks": list(zone.bad_blocks),
        "damages": _damages(damages),
    }
