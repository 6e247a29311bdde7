"""Channels: raw memory decoded to records, compared, and disagreements explained.

The zones are what a kernel wrote, kept with the tests of the formats.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from farm.formats.ramoops import decode_panicdump_zone
from farm.judge.channels import Channels, read_channels
from farm.model import (
    Capture,
    CycleInput,
    Finding,
    FindingKind,
    Manifest,
    Policy,
    Ramoops,
    Verdict,
)

GOLDEN = Path(__file__).resolve().parents[1] / "formats" / "golden" / "kernel"
BASE = 0x5FE0_0000
CONSOLE_BYTES = 0x2_0000
NOTICE = b"\nECC: No errors detected\n"


class Panic:
    """One panic as several channels may have read it."""

    def __init__(self, ecc: int) -> None:
        self.ecc = ecc
        folder = GOLDEN / ("elf-ecc16" if ecc else "elf")
        self.zone = gzip.decompress((folder / "zone.bin.gz").read_bytes())
        frames = decode_panicdump_zone(self.zone, ecc).frames
        self.records = {f"panicdump-ramoops-{one.ordinal}": one.data for one in frames}
        self.contents: dict[str, bytes] = {}
        self.captures: list[Capture] = []

    def _add(self, channel: str, name: str, data: bytes, paddr: int | None = None) -> None:
        path = f"captures/{channel}/{len(self.captures)}.bin"
        self.contents[path] = data
        digest = hashlib.sha256(data).hexdigest()
        self.captures.append(
            Capture(
                channel=channel,
                board_name=name,
                path=path,
                size_bytes=len(data),
                sha256=digest,
                paddr=paddr,
            )
        )

    def by_pstorefs(self, **changed: bytes) -> None:
        for name, data in self.records.items():
            key = name.rsplit("-", 1)[1]
            content = changed.get(f"record{key}", data)
            self._add("pstorefs", name, content + (NOTICE if self.ecc else b""))

    def by_memory(self, channel: str, zone: bytes | None = None) -> None:
        data = self.zone if zone is None else zone
        self._add(channel, "memory", data + bytes(CONSOLE_BYTES), BASE)

    def judged(self) -> Channels:
        ramoops = Ramoops(
            mem_address=BASE,
            mem_size_bytes=len(self.zone) + CONSOLE_BYTES,
            record_size_bytes=0,
            console_size_bytes=CONSOLE_BYTES,
            pmsg_size_bytes=0,
            ftrace_size_bytes=0,
            panicdump_size_bytes=len(self.zone),
            ecc_size_bytes=self.ecc,
        )
        manifest = Manifest.model_construct(ramoops=ramoops, backend="ramoops", devices=())
        cycle = CycleInput.model_construct(
            captures=tuple(self.captures), channels=(), manifest=manifest, policy=Policy()
        )
        return read_channels(cycle, lambda capture: self.contents[capture.path])

    def only(self) -> Finding:
        (finding,) = self.judged().findings
        return finding


@pytest.fixture(params=[0, 16], ids=["plain", "ecc"])
def panic(request: pytest.FixtureRequest) -> Panic:
    return Panic(request.param)


def test_files_and_memory_agree_after_normalising(panic: Panic) -> None:
    panic.by_pstorefs()
    panic.by_memory("sahara")
    panic.by_memory("fastboot")
    found = panic.only()
    assert found.kind is FindingKind.CHANNELS_AGREE
    assert found.verdict is Verdict.PASS
    assert f"pstorefs, sahara, fastboot: {len(panic.records)} records" in found.message


def test_memory_alone_becomes_the_records_that_pstorefs_would_show(panic: Panic) -> None:
    panic.by_memory("sahara")
    channels = panic.judged()
    assert {one.board_name for one in channels.captures} == set(panic.records)
    assert {one.board_name: channels.read(one) for one in channels.captures} == panic.records


def test_bits_that_ecc_mends_are_no_disagreement() -> None:
    panic = Panic(16)
    panic.by_pstorefs()
    zone = bytearray(panic.zone)
    for at in (500, 3000, 9000):
        zone[at] ^= 0x41
    panic.by_memory("sahara", bytes(zone))
    channels = panic.judged()
    kinds = [one.kind for one in channels.findings]
    assert kinds == [FindingKind.ECC_CORRECTED, FindingKind.CHANNELS_AGREE]
    assert channels.corrected_symbols == 3


def test_a_channel_that_changed_bytes_is_named_with_the_place(panic: Panic) -> None:
    panic.by_pstorefs()
    place = panic.zone.find(panic.records["panicdump-ramoops-2"])
    zone = bytearray(panic.zone)
    # More than ECC can mend, all in one block.
    for at in range(place + 600, place + 640):
        zone[at] ^= 0xFF
    panic.by_memory("sahara", bytes(zone))
    found = panic.only()
    assert found.kind is FindingKind.CHANNELS_DISAGREE
    assert found.verdict is Verdict.ERROR
    assert "panicdump-ramoops-2: sahara differs from pstorefs in 40 bytes" in found.message
    assert "first at 0x258" in found.message
    assert "the CRC says that pstorefs is right" in found.message


def test_a_file_that_differs_from_intact_memory_is_the_kernels_fault(panic: Panic) -> None:
    data = bytearray(panic.records["panicdump-ramoops-2"])
    data[0x258] ^= 1
    panic.by_pstorefs(record2=bytes(data))
    panic.by_memory("sahara")
    found = panic.only()
    assert found.kind is FindingKind.CHANNELS_DISAGREE
    assert found.verdict is Verdict.FAIL
    assert "the CRC says that sahara is right" in found.message


def test_a_record_that_one_channel_lacks_is_named(panic: Panic) -> None:
    panic.by_memory("sahara")
    del panic.records["panicdump-ramoops-1"]
    panic.by_pstorefs()
    found = panic.only()
    assert found.verdict is Verdict.ERROR
    assert "panicdump-ramoops-1: sahara has it, pstorefs has not" in found.message


def test_a_lost_zone_header_does_not_hide_the_records() -> None:
    panic = Panic(0)
    panic.by_pstorefs()
    panic.by_memory("sahara", bytes(12) + panic.zone[12:])
    found = {one.kind: one.verdict for one in panic.judged().findings}
    # pstorefs has its records, so the header is in memory and this channel did not get it.
    assert found[FindingKind.HEADER_LOST] is Verdict.ERROR
    assert FindingKind.CHANNELS_AGREE in found


def test_a_lost_zone_header_is_a_failure_where_the_kernel_shows_no_record_either() -> None:
    panic = Panic(0)
    panic.by_memory("sahara", bytes(12) + panic.zone[12:])
    (found,) = panic.judged().findings
    assert found.kind is FindingKind.HEADER_LOST
    assert found.verdict is Verdict.FAIL


def test_memory_without_any_zone_is_not_a_kernel_that_lost_its_records() -> None:
    panic = Panic(0)
    panic.by_memory("sahara", bytes(len(panic.zone)))
    channels = panic.judged()
    (stand_in,) = channels.captures
    assert not stand_in.complete
    assert "signature" in stand_in.note
    panic.by_pstorefs()
    found = next(one for one in panic.judged().findings if one.evidence is not None)
    assert found.kind is FindingKind.CAPTURE_INCOMPLETE
    assert found.verdict is Verdict.ERROR


def test_memory_that_misses_the_zone_is_incomplete_and_not_a_failure() -> None:
    panic = Panic(0)
    panic.by_pstorefs()
    panic.by_memory("sahara", panic.zone[: len(panic.zone) // 2 - CONSOLE_BYTES])
    found = panic.only()
    assert found.kind is FindingKind.CAPTURE_INCOMPLETE
    assert found.verdict is Verdict.ERROR
