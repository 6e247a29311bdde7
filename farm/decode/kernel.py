"""The kernel in a dump: where it was put, how it maps memory, and its table of regions.

Three ways lead to the table: the symbol in a vmlinux, the symbol in VMCOREINFO, the magic. Wherever
the kernel was moved to, physically and virtually, VMCOREINFO tells; without one, the build id of
the vmlinux is looked for in memory, where it stands at a known distance from everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from farm.decode.landmarks import Landmarks, Place, Progress, find_bytes
from farm.decode.memory import Memory
from farm.errors import FormatError, UsageError
from farm.formats.layout import Damage
from farm.formats.memory_table import (
    ENTRY_BYTES,
    TABLE_BYTES,
    MemoryTable,
    MemoryTableEntry,
    decode_memory_entries,
    decode_memory_table,
    looks_like_entry,
)
from farm.formats.page_table import Arm64Tables, Arm64Translation
from farm.formats.vmcoreinfo import MAX_BYTES, VmcoreInfo, parse_vmcoreinfo

__all__ = ["FoundTable", "Kernel", "Symbols", "find_kernel", "find_table", "read_symbols"]

_WORD = (1 << 64) - 1
_WANTED = (
    *("panicdump_table", "kimage_voffset", "swapper_pg_dir", "memstart_addr"),
    *("panic_cpu", "__cpu_online_mask"),
)
_PAGE = 4096


@dataclass(frozen=True)
class Symbols:
    """Addresses of some symbols of a vmlinux as linked, its build id, and where that note is."""

    path: Path
    addresses: dict[str, int]
    build_id: bytes
    note: bytes
    note_va: int


@dataclass
class Kernel:
    """What is known of the kernel; addresses are virtual, as they were when it ran.

    `voffset` is the virtual address of the kernel's image minus its physical one, modulo 2^64;
    `moved` how far it was moved from where it was linked to.
    """

    vmcoreinfo: VmcoreInfo | None = None
    vmcoreinfo_at: int | None = None
    symbols: Symbols | None = None
    voffset: int | None = None
    moved: int | None = None
    how: str = ""
    oddities: list[str] = field(default_factory=list)

    def address_of(self, name: str) -> int | None:
        """Virtual address of a symbol."""
        if self.vmcoreinfo is not None and (at := self.vmcoreinfo.symbol(name)) is not None:
            return at
        if self.symbols is not None and self.moved is not None:
            linked = self.symbols.addresses.get(name)
            return None if linked is None else linked + self.moved & _WORD
        return None

    def image_paddr(self, va: int) -> int | None:
        """Physical address of a part of the kernel's image."""
        return None if self.voffset is None else va - self.voffset & _WORD

    def translation(self, memory: Memory) -> Arm64Translation | None:
        """The kernel's page tables; None when it is not known where they are."""
        root = self.address_of("swapper_pg_dir")
        root_pa = None if root is None else self.image_paddr(root)
        if root_pa is None:
            return None
        page, bits = _PAGE, 48
        if self.vmcoreinfo is not None:
            page = self.vmcoreinfo.page_size or _PAGE
            size = self.vmcoreinfo.number("TCR_EL1_T1SZ")
            given = self.vmcoreinfo.number("VA_BITS")
            # A kernel that was built for 52 bits runs with 48 where the processor has no more.
            bits = 64 - size if size is not None and 12 <= size <= 28 else min(given or 48, 48)

        def read_word(paddr: int) -> int | None:
            data = memory.read(paddr, 8)
            return None if data is None else int.from_bytes(data, "little")

        return Arm64Translation(Arm64Tables(root_pa, page, bits), read_word)


@dataclass(frozen=True)
class FoundTable:
    """The table, by whatever way; `how` says which. Offsets of damages are from its entries."""

    paddr: int
    how: str
    table: MemoryTable
    entries: tuple[MemoryTableEntry, ...]
    damages: tuple[Damage, ...]


def read_symbols(path: Path) -> Symbols:
    """The few symbols that matter, from a vmlinux; raises UsageError that names the file."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection, SymbolTableSection

    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            addresses = {}
            table = elf.get_section_by_name(".symtab")
            if isinstance(table, SymbolTableSection):
                for name in _WANTED:
                    for symbol in table.get_symbol_by_name(name) or ():
                        addresses[name] = int(symbol["st_value"])
            for section in elf.iter_sections():
                if not isinstance(section, NoteSection) or not section["sh_addr"]:
                    continue
                for note in section.iter_notes():
                    if note["n_type"] == "NT_GNU_BUILD_ID":
                        at = note["n_offset"] - section["sh_offset"]
                        raw = section.data()[at : at + note["n_size"]]
                        build_id = bytes.fromhex(note["n_desc"])
                        return Symbols(path, addresses, build_id, raw, section["sh_addr"] + at)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ELFError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a vmlinux: {error}") from error
    raise UsageError(f"{path} has no build id in its memory: not the vmlinux of a kernel")


def find_kernel(
    memory: Memory, landmarks: Landmarks, symbols: Symbols | None, progress: Progress | None = None
) -> Kernel:
    """Tell where the kernel is, as far as the dump and the symbols do."""
    kernel = Kernel(symbols=symbols)
    text = _vmcoreinfo_of_notes(memory)
    if text is not None:
        kernel.vmcoreinfo = text
    for place in landmarks.vmcoreinfo:
        data = _read_at(memory, place, MAX_BYTES)
        try:
            info = parse_vmcoreinfo(data)
        except FormatError:
            continue
        if kernel.vmcoreinfo is None or len(info.values) > len(kernel.vmcoreinfo.values):
            kernel.vmcoreinfo = info
            kernel.vmcoreinfo_at = _paddr(memory, place)
    if kernel.vmcoreinfo is not None:
        kernel.voffset = kernel.vmcoreinfo.number("kimage_voffset")
        kernel.moved = kernel.vmcoreinfo.kernel_offset
        kernel.how = "VMCOREINFO"
    if symbols is None:
        return kernel
    told = kernel.vmcoreinfo.build_id if kernel.vmcoreinfo else None
    if told is not None and told != symbols.build_id.hex():
        kernel.oddities.append(
            f"{symbols.path} is not of this kernel: build id {symbols.build_id.hex()}, "
            f"the dump's is {told}"
        )
        kernel.symbols = None
        return kernel
    if kernel.voffset is None or kernel.moved is None:
        _locate_by_note(memory, kernel, symbols, progress)
    return kernel


def _locate_by_note(
    memory: Memory, kernel: Kernel, symbols: Symbols, progress: Progress | None
) -> None:
    place = find_bytes(memory, symbols.note, progress)
    note_pa = None if place is None else _paddr(memory, place)
    if note_pa is None:
        kernel.oddities.append(f"the build id of {symbols.path} is not in the dump")
        return
    # The kernel keeps the distance itself, in memory that lies where it was linked relative to.
    linked = symbols.addresses.get("kimage_voffset")
    if linked is None:
        return
    raw = memory.read(note_pa + linked - symbols.note_va, 8)
    if raw is None:
        return
    kernel.voffset = int.from_bytes(raw, "little")
    kernel.moved = note_pa + kernel.voffset - symbols.note_va & _WORD
    kernel.how = "build id"


def _vmcoreinfo_of_notes(memory: Memory) -> VmcoreInfo | None:
    texts = [note.desc for note in memory.notes if note.name_raw == b"VMCOREINFO"]
    for text in (*texts, memory.vmcoreinfo):
        try:
            return parse_vmcoreinfo(text)
        except FormatError:
            continue
    return None


def _paddr(memory: Memory, place: Place) -> int | None:
    base = memory.segments[place.number].paddr
    return None if base is None else base + place.offset


def _read_at(memory: Memory, place: Place, size_bytes: int) -> bytes:
    segment = memory.segments[place.number]
    size = max(0, min(size_bytes, segment.size_bytes - place.offset))
    buffer = bytearray(size)
    segment.source.read_into(segment.offset + place.offset, memoryview(buffer))
    return bytes(buffer)


def find_table(memory: Memory, landmarks: Landmarks, kernel: Kernel) -> FoundTable | None:
    """The table that is in use; None if there is none.

    A file that does not say where its memory begins is located by what the table says of itself.
    """
    _locate_segments(memory, landmarks, kernel)
    wanted: list[tuple[int, str]] = []
    if kernel.symbols is not None and kernel.moved is not None:
        linked = kernel.symbols.addresses.get("panicdump_table")
        at = None if linked is None else kernel.image_paddr(linked + kernel.moved & _WORD)
        if at is not None:
            wanted.append((at, f"symbol in {kernel.symbols.path.name}"))
    if kernel.vmcoreinfo is not None:
        va = kernel.vmcoreinfo.symbol("panicdump_table")
        at = None if va is None else kernel.image_paddr(va)
        if at is not None:
            wanted.append((at, "symbol in VMCOREINFO"))
    for at, how in wanted:
        table = _head_at(memory, at)
        if table is not None:
            entries, damages = decode_memory_entries(_raw_entries(memory, table), table)
            return FoundTable(at, how, table, entries, damages)
    return _scanned_table(memory, landmarks)


def _scanned_table(memory: Memory, landmarks: Landmarks) -> FoundTable | None:
    """That with the most entries: text segments and file caches hold the magic, too."""
    best: FoundTable | None = None
    looked_at: set[tuple[int, int, int]] = set()
    # A hostile dump may be full of heads that all claim entries: together they may be looked at
    # twice as often as there are bytes.
    left_bytes = 2 * memory.size_bytes
    for place in landmarks.tables:
        at = _paddr(memory, place)
        table = None if at is None else _head_at(memory, at)
        if at is None or table is None:
            continue
        key = (table.entries_pa, table.nr_entries, table.entry_size_bytes)
        if key in looked_at or left_bytes < 0:
            continue
        looked_at.add(key)
        raw = _raw_entries(memory, table)
        left_bytes -= len(raw) + TABLE_BYTES
        entries, damages = decode_memory_entries(raw, table)
        if best is None or len(entries) > len(best.entries):
            best = FoundTable(at, "magic", table, entries, damages)
    return best


def _head_at(memory: Memory, paddr: int) -> MemoryTable | None:
    data = memory.read(paddr, TABLE_BYTES)
    if data is None:
        return None
    try:
        return decode_memory_table(data)
    except FormatError:
        return None


def _raw_entries(memory: Memory, table: MemoryTable) -> bytes:
    """What of the entries is in the dump, from the first on."""
    parts = []
    for start, size, segment in memory.spans(
        table.entries_pa, table.nr_entries * table.entry_size_bytes
    ):
        if segment is None:
            break
        parts.append(memory.read(start, size) or b"")
    return b"".join(parts)


def _locate_segments(memory: Memory, landmarks: Landmarks, kernel: Kernel) -> None:
    """Tell where files' memory begins from the places of tables in them."""
    unlocated = {place.number for place in landmarks.tables} & {
        number for number, one in enumerate(memory.segments) if one.paddr is None
    }
    if not unlocated:
        return
    # The first entry is at the beginning of a page: each that looks like it is a candidate.
    firsts = [
        one
        for one in landmarks.entries
        if one.number in unlocated and looks_like_entry(_read_at(memory, one, ENTRY_BYTES))
    ]
    for place in landmarks.tables:
        segment = memory.segments[place.number]
        base = None if segment.paddr is not None else _base(memory, place, firsts, kernel)
        if base is not None:
            memory.locate(segment, base)


def _base(memory: Memory, place: Place, firsts: list[Place], kernel: Kernel) -> int | None:
    """Where memory begins that has this table in it."""
    try:
        table = decode_memory_table(_read_at(memory, place, TABLE_BYTES))
    except FormatError:
        return None
    if not table.nr_entries:
        return None
    va = kernel.vmcoreinfo.symbol("panicdump_table") if kernel.vmcoreinfo else None
    at = None if va is None else kernel.image_paddr(va)
    if at is not None and at >= place.offset:
        return at - place.offset
    bases = [
        table.entries_pa - one.offset
        for one in firsts
        if one.number == place.number and one.offset <= table.entries_pa
    ]
    # The beginning of memory that follows has the roundest address.
    return max(bases, key=lambda base: (base & -base) or 1 << 64, default=None)
