"""The table of regions in a dump of the memory, held against what the live board listed."""

from __future__ import annotations

import hashlib
import struct
import uuid

import pytest

from farm.judge import judge
from farm.model import Capture, ChannelRead, CycleVerdict, Expect, Verdict
from tests.judge.cycles import BOOT, OTHER_BOOT, Scene


def table(scene: Scene, boot: uuid.UUID = BOOT, drop: int = 0, grow: int = 0) -> bytes:
    """The table as the kernel keeps it; laid out by hand, after section 10 of the document."""
    entries = []
    for device in scene.devices:
        for region in device.regions:
            raw = struct.pack("<IIQ", device.id, region.index, region.va)
            raw += struct.pack("<QQII", region.pa or 0, region.size_bytes + grow, 1, 0)
            raw += struct.pack("<HHI", 0, 0, 0)
            raw += device.driver.encode().ljust(32, b"\0") + device.name.encode().ljust(64, b"\0")
            entries.append(raw + region.name.encode().ljust(32, b"\0") + bytes(16))
    entries = entries[drop:]
    raw = b"PANICDUMP-TABLE\0" + struct.pack("<HHHHII", 1, 64, 192, 0, len(entries), 64)
    return raw + boot.bytes + struct.pack("<QQ", 0, 0x4000_2000) + b"".join(entries)


def bitten(data: bytes | None) -> CycleVerdict:
    """A cycle after a watchdog's bite: no records, and ``data`` for a table."""
    scene = Scene(without_contents=True)
    scene.records = {one.id: None for one in scene.devices}
    scene.panic = {"panic_line": None}
    captures: tuple[Capture, ...] = ()
    if data is not None:
        digest = hashlib.sha256(data).hexdigest()
        captures = (
            Capture(
                channel="table",
                board_name="memory 0x1040",
                path="captures/table/table.bin",
                size_bytes=len(data),
                sha256=digest,
                paddr=0x1040,
            ),
        )
    read = ChannelRead(channel="table", wanted_bytes=1, received_bytes=1, seconds=1.0)
    cycle, _ = scene.prepared(expect=Expect.NONE, captures=captures, channels=(read,))
    return judge(cycle, lambda capture: data or b"")


def test_the_whole_table_of_this_boot_passes() -> None:
    result = bitten(table(Scene()))
    assert result.verdict is Verdict.PASS, result.why
    assert any("lists all 6 registered regions" in one.message for one in result.findings)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no table of regions"),
        (b"", "cannot be read"),
        (table(Scene())[:-1], "cannot be read"),
        (table(Scene(), OTHER_BOOT), "of another boot"),
        (table(Scene(), drop=1), "is None, registered is"),
        (table(Scene(), grow=1), "is ('panicdump-sample'"),
    ],
)
def test_anything_else_fails(data: bytes | None, said: str) -> None:
    result = bitten(data)
    assert result.verdict is Verdict.FAIL
    assert said in result.why
