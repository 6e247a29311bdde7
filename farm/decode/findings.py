"""What a file holds, recognised by its content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farm.decode.extract import ExtractedRegion, extract_regions
from farm.decode.kernel import FoundTable, Kernel, find_kernel, find_table, read_symbols
from farm.decode.landmarks import Progress, find_landmarks
from farm.decode.memory import FileSource, Memory, open_memory
from farm.decode.pstore_in_memory import FoundRegion, find_regions
from farm.errors import FormatError, UsageError
from farm.formats.contents import Contents, decode_contents
from farm.formats.devicetree import RamoopsNode
from farm.formats.dmesg import DmesgText, decode_dmesg, inflate
from farm.formats.elf import ELF_MAGIC
from farm.formats.infer import InferredLayout, infer_sizes
from farm.formats.kdump import FLATTENED_MAGIC, KDUMP_MAGIC
from farm.formats.memory_table import MAGIC
from farm.formats.pstore_zone import PstoreZoneStorage, decode_storage, is_storage
from farm.formats.ramoops import (
    PANICDUMP_SIGNATURE,
    Frame,
    FrameState,
    PanicdumpZone,
    RamoopsSizes,
    decode_panicdump_zone,
)
from farm.formats.record import (
    NOTE_NAME,
    RECORD_MAGIC,
    Record,
    RecordKind,
    RecordState,
    decode_record,
)
from farm.formats.region import (
    PstoreFile,
    RamoopsRegion,
    Salvage,
    decode_region,
    pstore_files,
    salvage,
)
from farm.formats.vmcoreinfo import FIRST_WORD

__all__ = ["Findings", "FoundRecord", "Given", "LogText", "MemoryFindings", "recognise"]

# A ramoops region or a record is no larger; what is, is memory.
MAX_REGION_BYTES = 64 << 20
_HEAD_BYTES = 1 << 16
_LOG_HEAD = re.compile(rb"(Panic|Oops|Emergency|Shutdown|Unknown)#\d+ Part\d+\n")
_LOG_LINE = re.compile(rb"(?:<\d+>)?\[ *\d+\.\d{6}\]")
_NOTICE = re.compile(
    rb"\nECC: (?:\d{1,10} Corrected bytes, \d{1,10} unrecoverable blocks|No errors detected)\n\Z"
)
_TRACE = re.compile(rb"CPU:\d+ ts:\d+ [0-9a-f]{8,16}  [0-9a-f]{8,16}  ")


@dataclass(frozen=True)
class Given:
    """What the user says of the input; nothing of it is needed where the input tells it itself.

    `sizes` are those of a ramoops region; with `ecc_only`, only its ECC is known.
    """

    sizes: RamoopsSizes | None = None
    ecc_only: int | None = None
    nodes: tuple[RamoopsNode, ...] = ()
    base_paddr: int | None = None
    places: tuple[tuple[str, int], ...] = ()
    vmlinux: Path | None = None


@dataclass(frozen=True)
class FoundRecord:
    """A record; `frame` is None when the file is the record."""

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


@dataclass(frozen=True)
class LogText:
    """A log as pstorefs shows it, or as it lies in its zone; `what` says which."""

    what: str
    text: bytes
    notice: bytes
    dmesg: DmesgText | None = None


@dataclass
class MemoryFindings:
    """What a dump of memory holds."""

    memory: Memory
    kernel: Kernel
    table: FoundTable | None
    regions: list[ExtractedRegion]


@dataclass
class Findings:
    """All that the input holds. `kind` names what it was recognised as."""

    kind: str
    records: list[FoundRecord] = field(default_factory=list)
    single_zone: PanicdumpZone | None = None
    single_ecc_bytes: int = 0
    ramoops: list[FoundRegion] = field(default_factory=list)
    layout: InferredLayout | None = None
    files: list[PstoreFile] = field(default_factory=list)
    salvaged: list[Salvage] = field(default_factory=list)
    storage: PstoreZoneStorage | None = None
    log: LogText | None = None
    memory: MemoryFindings | None = None

    @property
    def damaged(self) -> bool:
        """Whether something in it is not as it should be."""
        zones = [zone for one in self.ramoops for zone in one.region.zones]
        return (
            any(zone.damages for zone in zones)
            or (self.single_zone is not None and bool(self.single_zone.damages))
            or any(one.damaged for one in self.records)
            or (self.memory is not None and self._memory_damaged())
        )

    def _memory_damaged(self) -> bool:
        assert self.memory is not None
        table = self.memory.table
        return bool(table and table.damages) or any(one.missing for one in self.memory.regions)


def recognise(
    paths: Sequence[Path], given: Given | None = None, progress: Progress | None = None
) -> Findings:
    """Tell what the files hold, from their content; several files are one dump together.

    Raises FormatError or UsageError that names the file.
    """
    given = given or Given()
    if len(paths) > 1 or paths[0].is_dir():
        return _memory(paths, given, progress)
    path = paths[0]
    file = FileSource(path)
    head = file.read(0, _HEAD_BYTES)
    if head.startswith((KDUMP_MAGIC, FLATTENED_MAGIC)) or (
        head.startswith(ELF_MAGIC)
        and (NOTE_NAME + b"\0" not in head or file.size_bytes > MAX_REGION_BYTES)
        and _has_memory(path, given)
    ):
        return _memory(paths, given, progress)
    if file.size_bytes > MAX_REGION_BYTES:
        return _memory(paths, given, progress)
    data = file.read(0, file.size_bytes)
    try:
        return _small(path, data, given, progress)
    except FormatError as error:
        raise FormatError(
            f"{path}: offset {error.offset}: {error.message}",
            offset=error.offset,
            next_step=error.next_step,
        ) from error


def _has_memory(path: Path, given: Given) -> bool:
    return bool(open_memory([path], base_paddr=given.base_paddr).segments)


def _small(path: Path, data: bytes, given: Given, progress: Progress | None) -> Findings:
    if given.nodes:
        fitting = [node for node in given.nodes if node.sizes.mem_size_bytes <= len(data)]
        node = fitting[0] if fitting else given.nodes[0]
        return _region(data, node.sizes, node.paddr, "device tree")
    if given.sizes is not None:
        return _region(data, given.sizes, None, "given sizes")
    if data.startswith((RECORD_MAGIC, ELF_MAGIC)):
        return Findings("record", [open_record(data)])
    if _is_memory(data):
        return _memory([path], given, progress)
    if is_storage(data):
        storage = decode_storage(data)
        found = Findings("pstore/zone storage", storage=storage)
        found.records = list(_records_of_frames(storage.frames, within=True))
        return found
    if (inferred := _inferred(data, given)) is not None:
        return inferred
    if (log := _log(data)) is not None:
        return Findings(log.what, log=log)
    # Last, for it also looks for what is left of a damaged record.
    return Findings("record", [open_record(data)])


def _is_memory(data: bytes) -> bool:
    heads = (data[at : at + 34] for at in range(0, len(data), 4096))
    return (data.find(MAGIC) % 8 == 0 and MAGIC in data) or any(
        head.startswith(FIRST_WORD) or head[24:].startswith(FIRST_WORD) for head in heads
    )


def _inferred(data: bytes, given: Given) -> Findings | None:
    """A region or a zone, with what is not given told from the zones themselves."""
    try:
        layout = infer_sizes(data, given.ecc_only)
    except FormatError:
        layout = None
    sizes = layout.sizes if layout else None
    alone = given.ecc_only is not None or data[:4] == PANICDUMP_SIGNATURE.to_bytes(4, "little")
    several = layout is not None and layout.predicted > 1
    if alone and not several:
        ecc = (
            given.ecc_only if given.ecc_only is not None else (sizes.ecc_size_bytes if sizes else 0)
        )
        zone = decode_panicdump_zone(data, ecc)
        if not zone.zone.written and not zone.frames:
            raise FormatError("not a panicdump zone, and no frame of one in it", offset=0)
        found = Findings("panicdump zone", single_zone=zone, single_ecc_bytes=ecc)
        valid = zone.zone.valid
        found.records = list(_records_of_frames(zone.frames, within=valid))
        return found
    if layout is None or sizes is None:
        return None
    found = _region(data, sizes, None, "its zones")
    found.layout = layout
    return found


def _region(data: bytes, sizes: RamoopsSizes, paddr: int | None, how: str) -> Findings:
    region = decode_region(data, sizes)
    if not region.written:
        raise FormatError("no zone with such sizes has a signature", offset=0)
    found = Findings("ramoops region")
    _add_region(found, FoundRegion(paddr or 0, data, region, how))
    return found


def _add_region(found: Findings, one: FoundRegion) -> None:
    found.ramoops.append(one)
    found.files += pstore_files(one.region)
    found.salvaged += salvage(one.data, one.region)
    found.records += _records_of_region(one.region)


def _records_of_region(region: RamoopsRegion) -> Iterable[FoundRecord]:
    for zone in region.zones:
        yield from _records_of_frames(zone.frames, within=zone.zone.valid)


def _records_of_frames(frames: Iterable[Frame], *, within: bool) -> Iterable[FoundRecord]:
    for frame in frames:
        # With a valid header, what lies behind the valid bytes is an older panic's.
        remains = within and not frame.within
        try:
            yield open_record(frame.data, frame, remains=remains)
        except FormatError as error:
            yield FoundRecord(None, error.message, None, frame, remains)


def open_record(data: bytes, frame: Frame | None = None, *, remains: bool = False) -> FoundRecord:
    """Decode a record, and the table in it if it is the contents record."""
    record = decode_record(data)
    contents, why_not = None, ""
    if record.kind is RecordKind.CONTENTS:
        try:
            contents = decode_contents(record.regions[0].data if record.regions else b"")
        except FormatError as error:
            why_not = f"contents: {error.message}"
    return FoundRecord(record, why_not, contents, frame, remains)


def _log(data: bytes) -> LogText | None:
    match = _NOTICE.search(data, max(0, len(data) - 80))
    notice = match[0] if match else b""
    text = data[: len(data) - len(notice)]
    if (dmesg := decode_dmesg(text)) is not None:
        return LogText("contents of a dmesg zone", dmesg.text, notice, dmesg)
    if _LOG_HEAD.match(text):
        return LogText("dmesg record", text, notice)
    if _TRACE.match(text):
        return LogText("ftrace record", text, notice)
    if _LOG_LINE.search(text, 0, 4096):
        return LogText("console record", text, notice)
    unpacked, complete, _ = inflate(text)
    if complete and _LOG_HEAD.match(unpacked):
        return LogText("dmesg record, still compressed", unpacked, notice)
    if text and all(byte in b"\t\n\r\x1b" or 32 <= byte < 127 for byte in text[:4096]):
        return LogText("text, such as of pmsg", text, notice)
    return None


def _memory(paths: Sequence[Path], given: Given, progress: Progress | None) -> Findings:
    symbols = read_symbols(given.vmlinux) if given.vmlinux else None
    memory = open_memory(paths, base_paddr=given.base_paddr, places=given.places)
    landmarks = find_landmarks(memory, progress)
    kernel = find_kernel(memory, landmarks, symbols, progress)
    table = find_table(memory, landmarks, kernel)
    found = Findings(f"memory, {memory.kind}")
    regions = list(extract_regions(memory, kernel, table)) if table else []
    found.memory = MemoryFindings(memory, kernel, table, regions)
    for one in find_regions(memory, landmarks, sizes=given.sizes, nodes=given.nodes):
        _add_region(found, one)
    named = any(one.name for one in memory.segments)
    if table is None and not found.ramoops and kernel.vmcoreinfo is None and not named:
        where = " and ".join(str(path) for path in paths)
        if any(one.paddr is None for one in memory.segments):
            raise UsageError(
                f"{where}: nothing in it tells what it is",
                "If it is memory, say with --base where it begins.",
            )
        raise FormatError(
            f"{where}: neither a panicdump table nor ramoops nor VMCOREINFO in "
            f"{memory.size_bytes:#x} bytes of memory",
            offset=0,
        )
    return found
