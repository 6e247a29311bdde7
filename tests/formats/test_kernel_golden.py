"""What a kernel wrote decodes to what its table and the nonce promise.

The files come from `tests.formats.capture_kernel`. Nothing here was made by this project's own
encoder, so the decoders and the kernel agree on the format, or one of these tests fails.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farm.formats.contents import Outcome, decode_contents
from farm.formats.elf import check_elf
from farm.formats.pattern import expected_bytes
from farm.formats.ramoops import FrameState, decode_panicdump_zone, zone_layout
from farm.formats.record import Form, Record, RecordKind, RecordState, decode_record
from farm.formats.table import Table, TableDevice, parse_table

GOLDEN = Path(__file__).parent / "golden" / "kernel"
VARIANTS = ("elf", "raw", "elf-ecc16")


class Golden:
    """One variant's files."""

    def __init__(self, variant: str) -> None:
        self.folder = GOLDEN / variant
        self.origin: dict[str, Any] = json.loads((self.folder / "origin.json").read_text())
        self.table: Table = parse_table((self.folder / "table.txt").read_text(encoding="ascii"))
        self.zone = gzip.decompress((self.folder / "zone.bin.gz").read_bytes())
        self.ecc: int = self.origin["ecc_size_bytes"]

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def device(self, record: Record) -> TableDevice:
        (found,) = [one for one in self.table.devices if one.id == record.device_id]
        return found


@pytest.fixture(params=VARIANTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def assert_of_this_panic(golden: Golden, record: Record) -> None:
    assert record.damages == ()
    assert record.state is RecordState.INTACT
    assert record.form is Form(golden.origin["format"])
    assert record.boot_id == golden.table.boot_id
    assert record.sequence == golden.table.sequence + 1
    assert record.time_ns > 0
    assert 0 < record.uptime_ns < 10**12
    if record.form is Form.ELF:
        assert record.release == golden.origin["kernel_release"]
        assert record.build_id == golden.origin["build_id"]
        assert record.machine == 183


def assert_as_registered(golden: Golden, record: Record) -> int:
    """Hold a device's record against the table and the nonce; return the bytes compared."""
    device = golden.device(record)
    assert (record.driver, record.device) == (device.driver, device.name)
    assert record.priority == device.priority
    assert record.record_size_bytes <= device.needed_bytes
    assert len(record.regions) == len(device.regions)
    compared = 0
    for saved, registered in zip(record.regions, device.regions, strict=True):
        assert saved.name == registered.name
        assert saved.kind.name.lower() == registered.kind
        assert saved.size_bytes <= registered.size_bytes
        # A buffer without an address is one whose place is known in the panic only.
        if registered.va or registered.kind != "buffer":
            assert (saved.va, saved.pa, saved.size_bytes) == (
                registered.va,
                registered.pa,
                registered.size_bytes,
            )
        assert (saved.width_bytes, saved.stride_bytes) == (
            registered.width_bytes,
            registered.stride_bytes,
        )
        if number := re.fullmatch(r"panicdump-sample\.(\d+)", device.name):
            nonce = int(golden.origin["nonce"], 16)
            size = registered.size_bytes
            assert saved.data == expected_bytes(nonce, int(number[1]), saved.index, size)
            compared += size
    return compared


def test_the_device_record_holds_what_was_planted(golden: Golden) -> None:
    record = decode_record(golden.file("device.bin"))
    assert_of_this_panic(golden, record)
    assert record.kind is RecordKind.DEVICE
    assert [one.kind.name for one in record.regions] == ["BUFFER", "REGISTERS", "CALLBACK"]
    assert assert_as_registered(golden, record) == 100 + 64 + 33


def test_the_contents_record_lists_every_device(golden: Golden) -> None:
    record = decode_record(golden.file("contents.bin"))
    assert_of_this_panic(golden, record)
    assert record.kind is RecordKind.CONTENTS
    contents = decode_contents(record.regions[0].data)
    assert contents.damages == ()
    assert contents.nr_devices == contents.nr_records == len(golden.table.devices)
    assert contents.capacity_bytes == golden.table.capacity_bytes
    assert contents.on_overflow.name.lower() == golden.table.on_overflow
    assert contents.format.name.lower() == golden.origin["format"]
    listed = {(one.device_id, one.driver, one.device) for one in contents.entries}
    assert listed == {(one.id, one.driver, one.name) for one in golden.table.devices}
    assert {one.outcome for one in contents.entries} == {Outcome.SAVED}


def test_the_zone_in_memory_holds_the_files(golden: Golden) -> None:
    zone = decode_panicdump_zone(golden.zone, golden.ecc)
    assert zone.damages == ()
    assert (zone.zone.corrected_symbols, zone.zone.bad_blocks) == (0, ())
    frames = [frame for frame in zone.frames if frame.within]
    assert len(frames) == len(golden.table.devices) + 1
    assert [frame.ordinal for frame in frames] == list(range(len(frames)))
    assert {frame.state for frame in frames} == {FrameState.LIVE}
    compared = 0
    for frame in frames[1:]:
        record = decode_record(frame.data)
        assert_of_this_panic(golden, record)
        compared += assert_as_registered(golden, record)
    assert compared == 16 + 24 + 256 + 1000 + 100 + 64 + 33
    for name, board_name in golden.origin["files"].items():
        ordinal = int(board_name.removeprefix("panicdump-ramoops-"))
        notice = b"\nECC: No errors detected\n" if golden.ecc else b""
        assert golden.file(name) == frames[ordinal].data + notice


def test_the_kernel_s_parity_corrects_what_memory_lost() -> None:
    golden = Golden("elf-ecc16")
    whole = decode_panicdump_zone(golden.zone, 16)
    hurt = bytearray(golden.zone)
    used = whole.zone.layout.data_offset + whole.zone.size
    blocks = range(whole.zone.layout.data_offset, used - 128, 128)
    for at in blocks:
        for byte in range(8):
            hurt[at + 16 * byte] ^= 0x5A
    healed = decode_panicdump_zone(bytes(hurt), 16)
    assert healed.damages == ()
    assert healed.zone.corrected_symbols == 8 * len(blocks)
    assert [frame.data for frame in healed.frames] == [frame.data for frame in whole.frames]
    # One more than the code can mend: said, not hidden.
    hurt[blocks[0] + 1] ^= 1
    assert decode_panicdump_zone(bytes(hurt), 16).zone.bad_blocks == (blocks[0],)


def test_the_kernel_s_header_has_parity_too() -> None:
    golden = Golden("elf-ecc16")
    layout = zone_layout(len(golden.zone), 16)
    hurt = bytearray(golden.zone)
    for at in (0, 5, 9, layout.header_parity_offset):
        hurt[at] ^= 0xFF
    zone = decode_panicdump_zone(bytes(hurt), 16).zone
    assert (zone.valid, zone.corrected_symbols, zone.damages) == (True, 4, ())


@pytest.mark.parametrize("name", ["contents.bin", "device.bin"])
@pytest.mark.parametrize("variant", ["elf", "elf-ecc16"])
def test_other_readers_have_no_complaint(variant: str, name: str, tmp_path: Path) -> None:
    golden = Golden(variant)
    data = golden.file(name)
    assert check_elf(data) == []
    path = tmp_path / name
    path.write_bytes(data)
    done = subprocess.run(
        ["readelf", "-a", "-W", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "warning" not in done.stdout.lower()
    for region in decode_record(data).regions:
        assert region.name in done.stdout
