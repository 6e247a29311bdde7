"""``farm decode``: the command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from farm.decode.findings import Findings, Given, recognise
from farm.errors import FormatError, UsageError
from farm.formats.devicetree import ramoops_nodes
from farm.formats.ramoops import RamoopsSizes
from farm.formats.record import Record

EXIT_DAMAGED = 1
_PROGRESS_AFTER_S = 2.0
_PROGRESS_EVERY_S = 0.5

_SIZE_KEYS = {
    "mem_size": "mem_size_bytes",
    "record_size": "record_size_bytes",
    "panicdump_size": "panicdump_size_bytes",
    "console_size": "console_size_bytes",
    "pmsg_size": "pmsg_size_bytes",
    "ftrace_size": "ftrace_size_bytes",
    "ecc_size": "ecc_size_bytes",
    "ftrace_zones": "ftrace_zones",
    "ftrace_before_pmsg": "ftrace_before_pmsg",
}
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

Size = Annotated[str, typer.Option(metavar="BYTES", rich_help_panel="Layout of a ramoops region")]


def decode_command(
    file: Annotated[
        list[Path],
        typer.Argument(
            help="A file of pstorefs, a ramoops region or zone, storage of pstore/blk, a dump of "
            "memory (flat, ELF, kdump), or a folder of one. Several files are one dump together.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    extract: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the files that pstorefs would show, so named."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the bytes of each registered region."),
    ] = None,
    elf: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write memory as a vmcore for drgn, crash and gdb, or a record in ELF form.",
        ),
    ] = None,
    hexdump: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show so many bytes of each region.")
    ] = 0,
    registers: Annotated[
        list[Path] | None,
        typer.Option(metavar="YAML", help="Names and fields of registers; see devices/registers/."),
    ] = None,
    before: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Records from before: changed registers are marked."),
    ] = None,
    vmlinux: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The kernel of a dump of memory.")
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="ADDR", help="Where a flat dump begins; else it is found out.")
    ] = "",
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE=ADDR", help="The same for one file of a dump of several."),
    ] = None,
    ramoops: Annotated[
        str,
        typer.Option(
            metavar="SIZES",
            help="All sizes at once: record_size=8K,panicdump_size=512K,...",
            rich_help_panel="Layout of a ramoops region",
        ),
    ] = "",
    record_size: Size = "",
    panicdump_size: Size = "",
    console_size: Size = "",
    pmsg_size: Size = "",
    ftrace_size: Size = "",
    ftrace_zones: Size = "",
    ftrace_before_pmsg: Annotated[
        bool,
        typer.Option(
            "--ftrace-before-pmsg",
            help="The order of zones in older kernels, 6.1 among them; seen by itself mostly.",
            rich_help_panel="Layout of a ramoops region",
        ),
    ] = False,
    ecc_size: Size = "",
    dtb: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the sizes from this device tree.",
            rich_help_panel="Layout of a ramoops region",
        ),
    ] = None,
) -> None:
    """Show what a file holds that came off a board, and whether it is intact.

    What the file is, and the layout of a ramoops region, is told from the content; sizes are needed
    only where headers are lost. Exit code 0: intact; 1: something in it is damaged; 2: it holds
    nothing that is known here.
    """
    given = _given(
        file,
        {
            "record_size": record_size,
            "panicdump_size": panicdump_size,
            "console_size": console_size,
            "pmsg_size": pmsg_size,
            "ftrace_size": ftrace_size,
            "ftrace_zones": ftrace_zones,
            "ftrace_before_pmsg": "1" if ftrace_before_pmsg else "",
            "ecc_size": ecc_size,
        },
        ramoops,
        dtb,
    )
    given = Given(
        given.sizes,
        given.ecc_only,
        given.nodes,
        _number(base, "--base") if base else None,
        tuple(_place(one) for one in at or ()),
        vmlinux,
    )
    found = recognise(file, given, _Progress("looking through the dump"))
    said = []
    if extract is not None or regions is not None or elf is not None:
        said = _write(found, extract, regions, elf)
    maps = None
    if registers or before:
        from farm.decode.register_map import load_maps

        maps = load_maps(registers or (), tuple(_records_of(before)))
    if as_json:
        from farm.decode.describe import describe_findings

        print(json.dumps(describe_findings(found, maps), indent=2))
    else:
        from farm.decode.show import show

        show(found, maps, hexdump)
        print("".join(f"{line}\n" for line in said), end="")
    if found.damaged:
        raise typer.Exit(EXIT_DAMAGED)


def _given(paths: list[Path], sizes: dict[str, str], together: str, dtb: Path | None) -> Given:
    """What the options say of the layout."""
    words = [f"{name}={value}" for name, value in sizes.items() if value]
    if together and words:
        raise UsageError("--ramoops already gives the sizes: add to it what the other options say")
    if dtb is not None:
        older = bool(sizes["ftrace_before_pmsg"])
        if together or len(words) > older:
            raise UsageError("--dtb gives the sizes: leave out the other options")
        try:
            nodes = ramoops_nodes(dtb.read_bytes())
        except OSError as error:
            raise UsageError(f"{dtb}: {error.strerror}") from error
        except FormatError as error:
            raise FormatError(f"{dtb}: {error.message}", offset=error.offset) from error
        if not nodes:
            raise UsageError(f"{dtb} has no ramoops node")
        # A tree does not tell which kernel reads it.
        return Given(
            nodes=tuple(
                replace(node, sizes=replace(node.sizes, ftrace_before_pmsg=older)) for node in nodes
            )
        )
    if not (together or words):
        return Given()
    try:
        file_bytes = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    if list(map(str, words)) and all(word.startswith("ecc_size=") for word in words):
        parsed = parse_sizes(words[0], file_bytes)
        return Given(ecc_only=parsed.ecc_size_bytes)
    return Given(parse_sizes(together or ",".join(words), file_bytes))


def _place(text: str) -> tuple[str, int]:
    name, equals, address = text.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--at {text!r}: say FILE=ADDR")
    return name, _number(address, "--at")


def _number(text: str, option: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise UsageError(f"{option} {text!r} is not an address")
    return value


def _records_of(paths: list[Path] | None) -> Iterator[Record]:
    for path in paths or ():
        found = recognise([path])
        yield from (item.record for item in found.records if item.record is not None)


def _write(
    found: Findings, extract: Path | None, regions: Path | None, elf: Path | None
) -> list[str]:
    from farm.decode.output import extract_files, write_elf, write_regions

    said = []
    if extract is not None:
        said.append(f"{extract}: {extract_files(found, extract)} files")
    if regions is not None:
        said.append(f"{regions}: {write_regions(found, regions)} regions")
    if elf is not None:
        said.append(f"{elf}: {write_elf(found, elf, _Progress('writing'))}")
    return said


class _Progress:
    """A line on the terminal for what takes longer than two seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + _PROGRESS_AFTER_S

    def __call__(self, done: int, whole: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PROGRESS_EVERY_S
        if sys.stderr.isatty():
            percent = 100 * done // max(1, whole)
            print(f"\r{self._what}: {percent} % of {whole >> 20} MiB ", end="", file=sys.stderr)
            if done >= whole:
                print(file=sys.stderr)


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
    ftrace_first = bool(values.pop("ftrace_before_pmsg", 0))
    return RamoopsSizes(ftrace_before_pmsg=ftrace_first, **values)
