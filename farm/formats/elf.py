"""The part of ELF64 that a panicdump record uses, read from hostile input with bounds.

Source: System V gABI chapters 4 and 5 (object files, program loading);
Documentation/admin-guide/panicdump.rst, section 4.
Left out: ELF32, big-endian, relocations, symbols, extended numbering (e_phnum 0xffff).
`check_elf` is the other side: it lets pyelftools open a record that is believed good, as
`readelf -a` would, and lists what it dislikes.
"""

from __future__ import annotations

import io
import mmap
from dataclasses import dataclass

from farm.errors import FormatError
from farm.formats.layout import Damage, OpenEnum, StructTable, printable

__all__ = [
    "ElfImage",
    "Note",
    "Section",
    "SectionType",
    "Segment",
    "SegmentType",
    "check_elf",
    "parse_elf",
    "parse_notes",
]

ELF_MAGIC = b"\x7fELF"
IDENT = ELF_MAGIC + bytes((2, 1, 1, 0))  # ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE
ET_CORE = 4

EHDR = StructTable(
    "ELF header",
    64,
    (
        (0, "8s", "ident"),
        (16, "H", "type"),
        (18, "H", "machine"),
        (20, "I", "version"),
        (24, "Q", "entry"),
        (32, "Q", "phoff"),
        (40, "Q", "shoff"),
        (48, "I", "flags"),
        (52, "H", "ehsize"),
        (54, "H", "phentsize"),
        (56, "H", "phnum"),
        (58, "H", "shentsize"),
        (60, "H", "shnum"),
        (62, "H", "shstrndx"),
    ),
    magic=ELF_MAGIC,
)
PHDR = StructTable(
    "program header",
    56,
    (
        (0, "I", "type"),
        (4, "I", "flags"),
        (8, "Q", "offset"),
        (16, "Q", "vaddr"),
        (24, "Q", "paddr"),
        (32, "Q", "filesz"),
        (40, "Q", "memsz"),
        (48, "Q", "align"),
    ),
)
SHDR = StructTable(
    "section header",
    64,
    (
        (0, "I", "name"),
        (4, "I", "type"),
        (8, "Q", "flags"),
        (16, "Q", "addr"),
        (24, "Q", "offset"),
        (32, "Q", "size"),
        (40, "I", "link"),
        (44, "I", "info"),
        (48, "Q", "addralign"),
        (56, "Q", "entsize"),
    ),
)
NHDR = StructTable("note header", 12, ((0, "I", "namesz"), (4, "I", "descsz"), (8, "I", "type")))

MAX_NAME_BYTES = 64  # the longest name that a record can hold is 32 bytes


class SegmentType(OpenEnum):
    """p_type"""

    NULL = 0
    LOAD = 1
    NOTE = 4


class SectionType(OpenEnum):
    """sh_type"""

    NULL = 0
    PROGBITS = 1
    STRTAB = 3
    NOTE = 7


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header; `at` is where it stands in the file."""

    at: int
    type: SegmentType
    flags: int
    offset: int
    vaddr: int
    paddr: int
    file_size_bytes: int
    memory_size_bytes: int
    align_bytes: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section header; `at` is where it stands in the file."""

    at: int
    name_raw: bytes
    type: SectionType
    addr: int
    offset: int
    size_bytes: int

    @property
    def name(self) -> str:
        """The name, escaped."""
        return printable(self.name_raw)


@dataclass(frozen=True, slots=True)
class Note:
    """A note; `at` is where it stands in the file, `desc_at` where its descriptor does."""

    at: int
    name_raw: bytes
    type: int
    desc_at: int
    desc: bytes

    @property
    def end(self) -> int:
        """Offset of the next note."""
        return self.desc_at + _align(len(self.desc), 4)


@dataclass(frozen=True, slots=True)
class ElfImage:
    """What could be read of an ELF file.  `end` is the end of the section header table."""

    type: int
    machine: int
    end: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    notes: tuple[Note, ...]
    damages: tuple[Damage, ...]


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to


def parse_elf(data: bytes | mmap.mmap) -> ElfImage:
    """Read the headers and notes of an ELF64 file; what is damaged becomes a Damage.

    Work and memory are linear in the input.  Raises FormatError when the input is shorter than the
    ELF header.
    """
    damages: list[Damage] = []
    values = EHDR.unpack(data)
    for index, (want, got) in enumerate(zip(IDENT, values.raw("ident"), strict=True)):
        if want != got:
            damages.append(Damage(index, 1, f"ELF identification {got:#04x}, expected {want:#04x}"))
    for field, expected in (
        ("type", ET_CORE),
        ("version", 1),
        ("ehsize", EHDR.size_bytes),
        ("phentsize", PHDR.size_bytes),
        ("shentsize", SHDR.size_bytes),
    ):
        if (got := values.number(field)) != expected:
            damages.append(
                Damage(
                    EHDR.offset_of(field), None, f"e_{field} is {got:#x}, expected {expected:#x}"
                )
            )

    def table(kind: str, table_struct: StructTable) -> list[int]:
        start = values.number(f"{kind}off")
        count = values.number(f"{kind}num")
        room = max(0, len(data) - start) // table_struct.size_bytes
        if count > room:
            damages.append(
                Damage(
                    EHDR.offset_of(f"{kind}num"),
                    2,
                    f"{count} {table_struct.name}s at {start:#x} do not fit the input",
                )
            )
            count = room
        return [start + i * table_struct.size_bytes for i in range(count)]

    segments = []
    for at in table("ph", PHDR):
        entry = PHDR.unpack(data, at)
        segments.append(
            Segment(
                at,
                SegmentType(entry.number("type")),
                entry.number("flags"),
                entry.number("offset"),
                entry.number("vaddr"),
                entry.number("paddr"),
                entry.number("filesz"),
                entry.number("memsz"),
                entry.number("align"),
            )
        )
    sections = _sections(data, table("sh", SHDR), values.number("shstrndx"), damages)

    note_spans = [
        (seg.offset, seg.file_size_bytes) for seg in segments if seg.type is SegmentType.NOTE
    ]
    if len(note_spans) != 1:
        damages.append(
            Damage(EHDR.offset_of("phoff"), None, f"{len(note_spans)} PT_NOTE segments, expected 1")
        )
    # One span only: overlapping ones would make the work grow with their number.
    notes = _notes(data, *note_spans[0], damages) if note_spans else []
    return ElfImage(
        type=values.number("type"),
        machine=values.number("machine"),
        end=values.number("shoff") + values.number("shnum") * values.number("shentsize"),
        segments=tuple(segments),
        sections=tuple(sections),
        notes=tuple(notes),
        damages=tuple(damages),
    )


def _sections(
    data: bytes | mmap.mmap, places: list[int], names_index: int, damages: list[Damage]
) -> list[Section]:
    names_start = names_end = 0
    if names_index < len(places):
        names = SHDR.unpack(data, places[names_index])
        names_start = min(names.number("offset"), len(data))
        names_end = min(names_start + names.number("size"), len(data))
    elif places:
        damages.append(
            Damage(EHDR.offset_of("shstrndx"), 2, f"e_shstrndx {names_index} is not a section")
        )
    sections = []
    for at in places:
        entry = SHDR.unpack(data, at)
        name_at = names_start + entry.number("name")
        name = b""
        if name_at < names_end:
            name = data[name_at : min(name_at + MAX_NAME_BYTES, names_end)].split(b"\0", 1)[0]
        elif entry.number("name"):
            damages.append(Damage(at, 4, "section name outside the section name table"))
        sections.append(
            Section(
                at,
                name,
                SectionType(entry.number("type")),
                entry.number("addr"),
                entry.number("offset"),
                entry.number("size"),
            )
        )
    return sections


def _notes(
    data: bytes | mmap.mmap, start: int, size_bytes: int, damages: list[Damage]
) -> list[Note]:
    end = start + size_bytes
    if end > len(data):
        damages.append(
            Damage(min(start, len(data)), None, f"notes {start:#x}+{size_bytes:#x} pass the input")
        )
        end = len(data)
    notes = []
    at = start
    while at + NHDR.size_bytes <= end:
        head = NHDR.unpack(data, at)
        name_at = at + NHDR.size_bytes
        name_end = name_at + head.number("namesz")
        desc_at = _align(name_end, 4)
        desc_end = desc_at + head.number("descsz")
        if desc_end > end:
            damages.append(Damage(at, None, "note passes the end of its segment"))
            break
        notes.append(
            Note(
                at,
                data[name_at : min(name_end, name_at + MAX_NAME_BYTES)].rstrip(b"\0"),
                head.number("type"),
                desc_at,
                data[desc_at:desc_end],
            )
        )
        at = _align(desc_end, 4)
    else:
        if at < end:
            damages.append(Damage(at, end - at, "bytes after the last note"))
    return notes


def parse_notes(data: bytes) -> list[Note]:
    """The notes that `data` is made of, as far as they are whole."""
    return _notes(data, 0, len(data), [])


def check_elf(data: bytes) -> list[str]:
    """What pyelftools dislikes about a record in ELF form; empty when it is a clean core file.

    Meant for records that decoded as intact: a second reader's opinion on the ELF wrapping.
    Raises FormatError when pyelftools cannot open the input at all.
    """
    # Only this needs the library: who looks through a gigabyte must not wait for it first.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection, NullSection
    from elftools.elf.segments import NoteSegment

    complaints: list[str] = []
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.elfclass != 64 or not elf.little_endian:
            complaints.append("not ELF64 little-endian")
        if elf["e_type"] != "ET_CORE":
            complaints.append(f"e_type is {elf['e_type']}")
        noted = 0
        for number, segment in enumerate(elf.iter_segments()):
            kind, align = segment["p_type"], segment["p_align"]
            if segment["p_offset"] + segment["p_filesz"] > len(data):
                complaints.append(f"segment {number} passes the end of the file")
            if kind == "PT_LOAD":
                if segment["p_filesz"] > segment["p_memsz"]:
                    complaints.append(f"segment {number}: p_filesz > p_memsz")
                if align > 1 and (segment["p_offset"] - segment["p_vaddr"]) % align:
                    complaints.append(f"segment {number}: offset and address differ modulo p_align")
            if isinstance(segment, NoteSegment):
                noted += 1
                complaints += [
                    f"note {note['n_name']!r} type {note['n_type']} is empty"
                    for note in segment.iter_notes()
                    if not note["n_descsz"]
                ]
        if noted != 1:
            complaints.append(f"{noted} note segments")
        for number, section in enumerate(elf.iter_sections()):
            if number == 0:
                if not isinstance(section, NullSection):
                    complaints.append("section 0 is not null")
                continue
            if not section.name:
                complaints.append(f"section {number} has no name")
            if section["sh_offset"] + section["sh_size"] > len(data):
                complaints.append(f"section {number} passes the end of the file")
            if isinstance(section, NoteSection):
                list(section.iter_notes())
    # pyelftools reads with construct; a bad length can surface as any of these.
    except (ELFError, ValueError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise FormatError(f"pyelftools cannot read the file: {error}", offset=0) from error
    return complaints
