"""What is fuzzed: every way by which bytes of a board come in, each bounded in time and memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from farm.decode.describe import describe_findings
from farm.decode.findings import Findings, Given, recognise
from farm.decode.output import extract_files, write_elf, write_regions
from farm.errors import FarmError
from farm.formats.contents import decode_contents
from farm.formats.devicetree import ramoops_nodes
from farm.formats.dmesg import decode_dmesg
from farm.formats.elf import parse_elf
from farm.formats.infer import infer_sizes
from farm.formats.kdump import open_kdump
from farm.formats.memory_table import decode_memory_entries, decode_memory_table
from farm.formats.pstore_zone import decode_storage
from farm.formats.ramoops import RamoopsSizes, decode_panicdump_zone
from farm.formats.record import decode_record
from farm.formats.region import decode_region, pstore_files, salvage
from farm.formats.table import parse_table
from farm.formats.vmcoreinfo import parse_vmcoreinfo

__all__ = ["TARGETS", "budget_s"]


def budget_s(size_bytes: int) -> float:
    """The most time that so many bytes may take: one second for a mebibyte, and some to begin."""
    return 0.5 + size_bytes / (1 << 20)


def _region(data: bytes) -> None:
    ecc = (0, 8, 16, 32)[data[0] % 4] if data else 0
    sizes = RamoopsSizes(
        mem_size_bytes=16384,
        record_size_bytes=4096,
        panicdump_size_bytes=4096,
        console_size_bytes=4096,
        ecc_size_bytes=ecc,
    )
    region = decode_region(data[1:16385], sizes)
    pstore_files(region)
    salvage(data[1:16385], region)


def _zone(data: bytes) -> None:
    ecc = (0, 8, 16, 32)[data[0] % 4] if data else 0
    decode_panicdump_zone(data[1:], ecc)


def _entries(data: bytes) -> None:
    decode_memory_entries(data[64:], decode_memory_table(data))


def _kdump(data: bytes) -> None:
    dump = open_kdump(lambda at, size: data[at : at + size] if at >= 0 else b"", len(data))
    for number, _ in dump.runs[:16]:
        dump.page(number)


def _file(data: bytes) -> Findings:
    """The command's whole way, from a file."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "file"
        file.write_bytes(data)
        found = recognise([file], Given(base_paddr=0x4000_0000))
        describe_findings(found, None)
        return found


def _written(data: bytes) -> None:
    """What the command makes of a file, in every form that it writes."""
    found = _file(data)
    ways: list[Callable[[Findings, Path], object]] = [write_elf, extract_files, write_regions]
    with tempfile.TemporaryDirectory() as name:
        for number, write in enumerate(ways):
            with contextlib.suppress(FarmError):
                write(found, Path(name) / str(number))


_DECODERS: dict[str, Callable[[bytes], object]] = {
    "record": decode_record,
    "contents": decode_contents,
    "zone": _zone,
    "region": _region,
    "infer": infer_sizes,
    "storage": decode_storage,
    "dmesg": decode_dmesg,
    "elf": parse_elf,
    "kdump": _kdump,
    "devicetree": ramoops_nodes,
    "memory-table": _entries,
    "vmcoreinfo": parse_vmcoreinfo,
    "table": lambda data: parse_table(data.decode("latin-1")),
    "file": _file,
    "written": _written,
}


def _only_errors_of_ours(decode: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with contextlib.suppress(FarmError):
            decode(data)

    return run


TARGETS = {name: _only_errors_of_ours(decode) for name, decode in _DECODERS.items()}
