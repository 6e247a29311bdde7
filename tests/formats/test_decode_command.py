"""The command: what it says, what it writes, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from farm.decode.cli import decode_command, parse_sizes
from farm.errors import FarmError, FormatError, UsageError
from farm.formats.encode import (
    NewRecord,
    NewRegion,
    encode_frames,
    encode_record,
    encode_zone,
)
from tests.formats.format_samples import contents_record, device_record, flipped

RECORDS = [encode_record(contents_record()), encode_record(device_record())]
FRAMES = encode_frames(RECORDS)


def run(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(decode_command)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])
    if isinstance(result.exception, FarmError):
        raise result.exception
    return result.exit_code, result.stdout


def answer(*arguments: object) -> tuple[int, Any]:
    code, text = run(*arguments, "--json")
    return code, json.loads(text)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "capture"
    path.write_bytes(data)
    return path


def test_an_intact_record(tmp_path: Path) -> None:
    path = written(tmp_path, RECORDS[1])
    code, text = run(path)
    assert code == 0
    for word in ("INTACT", "panicdump-sample.3", "spread regs", "6.12.90", "truncated"):
        assert word in text
    code, found = answer(path)
    assert (code, found["damaged"], found["zones"]) == (0, False, [])
    (record,) = found["records"]
    assert record["state"] == "intact"
    assert [region["name"] for region in record["regions"]][:2] == ["buf0", "reg1"]
    assert all(region["crc_ok"] for region in record["regions"])


def test_a_contents_record_shows_its_table(tmp_path: Path) -> None:
    path = written(tmp_path, RECORDS[0])
    code, text = run(path)
    assert code == 0
    assert "9000000.serial" in text
    assert "overflow" in text
    _, found = answer(path)
    outcomes = [entry["outcome"] for entry in found["records"][0]["contents"]["entries"]]
    assert outcomes == ["saved", "overflow", "callback_failed"]


def test_damage_ends_with_1_and_is_placed(tmp_path: Path) -> None:
    data = encode_record(device_record(), "raw")
    path = written(tmp_path, flipped(data, (192 + 6 * 96 + 3) * 8))
    code, text = run(path)
    assert code == 1
    assert "CORRUPT" in text
    assert "WRONG" in text
    assert "damage at 0x300, 100 bytes: region 'buf0': CRC differs" in text
    assert answer(path)[0] == 1
    assert run(written(tmp_path, data[:-20]))[0] == 1


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, bytes(range(256)))
    with pytest.raises(FormatError, match="capture: offset 0") as caught:
        run(path)
    assert caught.value.exit_code == 2
    with pytest.raises(FormatError):
        run(written(tmp_path, bytes(4096)), "--ecc-size", 0)
    with pytest.raises(FormatError):
        run(written(tmp_path, bytes(8192)), "--ramoops", "panicdump_size=4K")
    with pytest.raises(UsageError, match="absent"):
        run(tmp_path / "absent")


@pytest.mark.parametrize("ecc", [0, 16])
def test_a_zone(ecc: int, tmp_path: Path) -> None:
    path = written(tmp_path, encode_zone(FRAMES, 8192, ecc))
    code, found = answer(path, "--ecc-size", ecc)
    assert code == 0
    assert [record["frame"]["ordinal"] for record in found["records"]] == [0, 1]
    assert found["zones"][0]["valid"]
    if not ecc:
        # its signature gives a zone away
        assert answer(path)[1] == found


def test_a_zone_whose_header_is_lost_is_damaged_but_shown(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xff" * 12 + encode_zone(FRAMES, 8192)[12:])
    code, text = run(path, "--ecc-size", 0)
    assert code == 1
    assert "zone header lost, 2 frames found" in text
    assert text.count("INTACT") == 2


def test_unlinked_records_and_remains_are_no_damage(tmp_path: Path) -> None:
    broken = flipped(RECORDS[1], 5000)
    new = encode_frames([RECORDS[0], broken], erased=[1])
    area = new + encode_frames([broken])
    code, found = answer(written(tmp_path, encode_zone(area, 16384, size=len(new))))
    assert code == 0
    assert [record["state"] for record in found["records"]] == ["intact", "corrupt", "corrupt"]
    code, text = run(written(tmp_path, encode_zone(area, 16384, size=len(new))))
    assert "erased" in text
    assert "remains of an older panic" in text


def test_a_whole_region(tmp_path: Path) -> None:
    dmesg = encode_zone(b"====1.000002-D\nPanic#1\n", 4096, 16, signature=0x43474244)
    region = dmesg + bytes(4096) + encode_zone(FRAMES, 8192, 16) + bytes(4096)
    path = written(tmp_path, region)
    sizes = "mem_size=0x5000,record_size=4K,panicdump_size=8192,console_size=4k,ecc_size=16"
    code, found = answer(path, "--ramoops", sizes)
    assert code == 0
    assert [zone["zone"] for zone in found["zones"]] == [
        "dmesg 0",
        "dmesg 1",
        "panicdump 0",
        "console 0",
    ]
    assert [zone["written"] for zone in found["zones"]] == [True, False, True, False]
    assert len(found["records"]) == 2
    assert "zone panicdump 0" in run(path, "--ramoops", sizes)[1]


def test_extracted_files_are_named_by_number_only(tmp_path: Path) -> None:
    evil = NewRecord(
        driver="../../etc",
        device="/etc/passwd",
        regions=(NewRegion(name="../../../x", data=b"first"), NewRegion(name="/y", data=b"")),
    )
    path = written(tmp_path, encode_record(evil))
    folder = tmp_path / "out"
    assert run(path, "--regions", folder)[0] == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "record-0-region-0.bin": b"first",
        "record-0-region-1.bin": b"",
    }
    assert {file.name for file in tmp_path.iterdir()} == {"capture", "out"}
    with pytest.raises(UsageError, match="exists already"):
        run(path, "--regions", folder)


def test_names_are_neither_markup_nor_escape_sequences(tmp_path: Path) -> None:
    evil = NewRecord(
        driver="[bold red]d",
        device=b"\x1b]0;title\x07",
        regions=(NewRegion(name="[link=x]y", data=b""),),
    )
    _, text = run(written(tmp_path, encode_record(evil, "raw")))
    assert "[bold red]d" in text
    assert "[link=x]y" in text
    assert "\x1b" not in text
    assert "\\x1b]0;title\\x07" in text


def test_a_contents_record_without_a_table_is_damaged(tmp_path: Path) -> None:
    empty = NewRecord(driver="panicdump", device="contents", kind=1)
    code, found = answer(written(tmp_path, encode_record(empty)))
    assert code == 1
    assert "contents" in found["records"][0]["not_decoded"]


def test_a_frame_without_a_record_is_damaged(tmp_path: Path) -> None:
    code, text = run(written(tmp_path, encode_zone(encode_frames([b"nothing"]), 4096)))
    assert code == 1
    assert "not decoded" in text


@pytest.mark.parametrize(
    "text", ["size=1", "mem_size", "record_size=x", "record_size=4Q", "record_size=4KK", "", "=1"]
)
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--ramoops"):
        parse_sizes(text, 4096)


def test_sizes() -> None:
    sizes = parse_sizes("record_size=4K, panicdump_size=0x1000,console_size=1M", 2 << 20)
    assert (sizes.mem_size_bytes, sizes.record_size_bytes) == (2 << 20, 4096)
    assert (sizes.panicdump_size_bytes, sizes.console_size_bytes) == (4096, 1 << 20)
    with pytest.raises(UsageError, match="the file has"):
        parse_sizes("mem_size=8192", 4096)
