"""Writes what was found to files, whose names are made here: a board's names are never paths."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from farm.decode.findings import Findings
from farm.decode.landmarks import Progress
from farm.decode.vmcore import PRSTATUS_BYTES, crash_option, prstatus_of_cpu, write_vmcore
from farm.errors import UsageError
from farm.formats.encode import NewRecord, NewRegion, encode_record
from farm.formats.ramoops import FrameState
from farm.formats.record import Form, Record, RegionKind
from farm.formats.region import ecc_notice

__all__ = ["extract_files", "new_record", "write_elf", "write_regions"]

SALVAGE_FOLDER = "not-in-pstore"
_CPU_LINE = re.compile(rb"CPU: (\d{1,4}) ")
_PANIC_LINE = b"Kernel panic - not syncing"
_MAX_CPUS = 1024
_STACK_OF_CPU = re.compile(r"stack(\d{1,3})")
_PAGE = 4096


def _write_all(folder: Path, files: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    try:
        for name, data in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                out.write(data)
            count += 1
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{error.filename} exists already", "Name an empty folder.") from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    return count


def extract_files(found: Findings, folder: Path) -> int:
    """Write each file that pstorefs shows, under its name there; returns how many.

    What the kernel would not show goes to a folder of its own inside.
    """
    return _write_all(folder, _files(found))


def _files(found: Findings) -> Iterable[tuple[str, bytes]]:
    several = len(found.ramoops) > 1
    for number, one in enumerate(found.ramoops):
        prefix = f"region-{number}/" if several else ""
        for file in found.files:
            if file.zone in one.region.zones:
                place = f"{SALVAGE_FOLDER}/" if file.hidden else ""
                yield f"{prefix}{place}{file.name}", file.data
        for left in found.salvaged:
            if left.zone in one.region.zones:
                kind, index = left.zone.place.kind.value, left.zone.place.index
                yield f"{prefix}{SALVAGE_FOLDER}/{kind}-{index}", left.data
    if found.storage is not None:
        yield from ((file.name, file.data) for file in found.storage.files)
    for number, item in enumerate(found.records):
        frame = item.frame
        if frame is None or (frame.ordinal is not None and found.single_zone is None):
            continue
        shown = frame.ordinal is not None and frame.state is FrameState.LIVE and frame.data
        if shown and found.single_zone is not None:
            zone = found.single_zone.zone
            notice = ecc_notice(zone, found.single_ecc_bytes)
            yield f"panicdump-ramoops-{frame.ordinal}", frame.data + notice
        else:
            yield f"{SALVAGE_FOLDER}/panicdump-frame-{number}", frame.data
    if found.log is not None:
        yield "log", found.log.text


def new_record(record: Record) -> NewRecord:
    """Return what ``record`` was made from, to be written again."""
    return NewRecord(
        driver=record.driver_raw.rstrip(b"\0"),
        device=record.device_raw.rstrip(b"\0"),
        kind=int(record.kind),
        sequence=record.sequence,
        device_id=record.device_id,
        index=record.index,
        time_ns=record.time_ns,
        uptime_ns=record.uptime_ns,
        error=record.error,
        priority=record.priority,
        flags=int(record.flags),
        boot_id=uuid.UUID(record.boot_id),
        regions=[
            NewRegion(
                name=region.name_raw.rstrip(b"\0"),
                data=region.data,
                kind=int(region.kind),
                va=region.va,
                pa=region.pa,
                size_bytes=region.size_bytes,
                width_bytes=region.width_bytes,
                stride_bytes=region.stride_bytes,
                note_type=region.note_type,
                flags=int(region.flags),
                error=region.error,
            )
            for region in record.regions
        ],
    )


def _bytes_of(record: Record) -> bytes:
    """A record as it would be written today, in ELF form, without what was damaged around it."""
    build_id = bytes.fromhex(record.build_id) if record.build_id else None
    return encode_record(
        new_record(record), Form.ELF, release=record.release or "", build_id=build_id
    )


def write_regions(found: Findings, folder: Path) -> int:
    """Write the bytes of each region of each record, or of the table's; returns how many."""
    return _write_all(folder, _regions(found))


def _regions(found: Findings) -> Iterable[tuple[str, bytes]]:
    for number, item in enumerate(found.records):
        for region in item.record.regions if item.record else ():
            yield f"record-{number}-region-{region.index}.bin", region.data
    for one in found.memory.regions if found.memory else ():
        if one.data is not None:
            entry = one.entry
            yield f"device-{entry.device_id}-region-{entry.region_index}.bin", one.data


def write_elf(found: Findings, out: Path, progress: Progress | None = None) -> str:
    """Write memory as a vmcore, or the only record in ELF form; returns what was done, in words."""
    if found.memory is not None:
        own = _own_registers(found)
        registers = dict(enumerate(own)) or _saved_registers(found)
        then = list(_online_mask(found, registers)) if registers else []
        # To registers of the dump itself, which are later ones, the stacks in its memory belong.
        if not own:
            then += _saved_stacks(found)
        size = write_vmcore(
            found.memory.memory,
            found.memory.kernel,
            out,
            [
                registers.get(cpu, bytes(PRSTATUS_BYTES))
                for cpu in range(max(registers, default=-1) + 1)
            ],
            progress,
            then=then,
        )
        cpus = ", ".join(str(cpu) for cpu, one in sorted(registers.items()) if any(one))
        with_registers = f", registers of CPU {cpus}" if cpus else ""
        option = crash_option(found.memory.kernel)
        for_crash = f"; for crash: {option}" if option else ""
        return f"vmcore of {size:,} bytes{with_registers}{for_crash}"
    records = [item.record for item in found.records if item.record is not None]
    if len(records) != 1:
        raise UsageError(f"--elf takes memory or one record, this holds {len(records)}")
    _write_all(out.parent, [(out.name, _bytes_of(records[0]))])
    return "record in ELF form"


def _saved_registers(found: Findings) -> dict[int, bytes]:
    """NT_PRSTATUS by processor, as the records of the CPUs hold it."""
    saved: dict[int, bytes] = {}
    for record in _cpu_records(found):
        for region, behind in pairwise(record.regions):
            if region.note_type != 1 or len(region.data) != PRSTATUS_BYTES:
                continue
            # In the record of the CPUs that were stopped, what follows is the stack of that CPU.
            stopped = _STACK_OF_CPU.fullmatch(behind.name)
            cpu = int(stopped[1]) if stopped else _panic_cpu(found)
            saved[cpu] = prstatus_of_cpu(region.data, cpu)
    return saved


def _own_registers(found: Findings) -> list[bytes]:
    """NT_PRSTATUS of the dump itself, in the order of its processors."""
    assert found.memory is not None
    return [
        note.desc
        for note in found.memory.memory.notes
        if (note.name_raw, note.type, len(note.desc)) == (b"CORE", 1, PRSTATUS_BYTES)
    ]


def _cpu_records(found: Findings) -> Iterable[Record]:
    """The records of the CPUs, that of the one which panicked last."""
    records = [
        item.record
        for item in found.records
        if item.record is not None and not item.remains and item.record.driver == "cpu"
    ]
    return sorted(records, key=lambda one: one.device == "panic")


def _online_mask(found: Findings, registers: dict[int, bytes]) -> Iterable[tuple[int, bytes]]:
    """The CPUs that were online before the panic has stopped them, by physical address.

    Tools take the registers of those only that are online.
    """
    assert found.memory is not None
    kernel, memory = found.memory.kernel, found.memory.memory
    va = kernel.address_of("__cpu_online_mask")
    paddr = None if va is None else kernel.image_paddr(va)
    size = (max(registers) // 64 + 1) * 8
    raw = None if paddr is None else memory.read(paddr, size)
    if paddr is None or raw is None:
        return
    mask = int.from_bytes(raw, "little")
    for cpu in registers:
        mask |= 1 << cpu
    yield paddr, mask.to_bytes(size, "little")


def _saved_stacks(found: Findings) -> list[tuple[int, bytes]]:
    """The stacks in these records, page by page, by physical address."""
    assert found.memory is not None
    translation = found.memory.kernel.translation(found.memory.memory)
    pieces = []
    for region in (one for record in _cpu_records(found) for one in record.regions):
        if region.kind is not RegionKind.BUFFER or translation is None:
            continue
        at = 0
        while at < len(region.data):
            size = min(_PAGE - (region.va + at) % _PAGE, len(region.data) - at)
            paddr = translation.translate(region.va + at)
            if paddr is not None:
                pieces.append((paddr, region.data[at : at + size]))
            at += size
    return pieces


def _panic_cpu(found: Findings) -> int:
    """Which processor panicked: by the kernel's own variable, else by what it logged."""
    assert found.memory is not None
    kernel, memory = found.memory.kernel, found.memory.memory
    va = kernel.address_of("panic_cpu")
    paddr = None if va is None else kernel.image_paddr(va)
    raw = None if paddr is None else memory.read(paddr, 4)
    if raw is not None and (number := int.from_bytes(raw, "little", signed=True)) >= 0:
        return min(number, _MAX_CPUS)
    for file in found.files:
        at = file.data.rfind(_PANIC_LINE)
        match = _CPU_LINE.search(file.data, at) if at >= 0 else None
        if match is not None:
            return min(int(match[1]), _MAX_CPUS)
    return 0
