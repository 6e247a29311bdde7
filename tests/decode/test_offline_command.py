"""`farm decode` on whole files: recognised, shown, written."""

from __future__ import annotations

import json
import os
import subprocess
import zlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from farm.decode.cli import decode_command
from farm.errors import FarmError, UsageError
from farm.formats.encode import NewRecord, NewRegion, encode_frames, encode_record, encode_zone
from farm.formats.ramoops import SIGNATURE
from farm.formats.record import decode_record

MAPS = Path(__file__).parents[2] / "devices" / "registers"
RECORD = NewRecord(
    driver="uart-pl011",
    device="9000000.serial",
    regions=[
        NewRegion(name="uart", data=bytes(12) + b"\x90\0", kind=2, width_bytes=2, stride_bytes=4)
    ],
)


def run(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(decode_command)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])
    if isinstance(result.exception, FarmError):
        raise result.exception
    return result.exit_code, result.stdout


def packed(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text) + packer.flush()


def a_region(ecc: int = 16) -> bytes:
    log = bytes(range(32, 127)) * 30
    zones = [
        (b"====1.000002-C\n" + packed(b"Oops#1 Part1\n" + log), SIGNATURE),
        (b"", SIGNATURE),
        (encode_frames([encode_record(RECORD), encode_record(RECORD)], [0]), None),
        (b"[    1.000000] console\n", SIGNATURE),
    ]
    return b"".join(
        encode_zone(data, 4096, ecc, **({"signature": one} if one else {})) for data, one in zones
    )


def test_files_are_extracted_as_pstorefs_names_them(tmp_path: Path) -> None:
    path = tmp_path / "ramoops.bin"
    path.write_bytes(a_region())
    out = tmp_path / "out"
    code, text = run(path, "--extract", out)
    assert code == 0
    assert (
        "layout from its zones: record 0x1000, panicdump 0x1000, console 0x1000, ecc 0x10" in text
    )
    notice = b"\nECC: No errors detected\n"
    files = {one.name: one.read_bytes() for one in out.iterdir()}
    assert files == {
        "dmesg-ramoops-0": b"Oops#1 Part1\n" + bytes(range(32, 127)) * 30 + notice,
        "panicdump-ramoops-1": encode_record(RECORD) + notice,
        "console-ramoops-0": b"[    1.000000] console\n" + notice,
    }
    for sizes in (
        ("--record-size", "4K", "--panicdump-size", "4096", "--console-size", "0x1000"),
        ("--ramoops", "record_size=4K,panicdump_size=4K,console_size=4K"),
    ):
        ecc = ("--ecc-size", "16") if sizes[0] != "--ramoops" else ()
        if sizes[0] == "--ramoops":
            sizes = (sizes[0], sizes[1] + ",ecc_size=16")
        again = tmp_path / f"again-{sizes[0]}"
        assert run(path, "--extract", again, *sizes, *ecc)[0] == 0
        assert {one.name: one.read_bytes() for one in again.iterdir()} == files


def test_corrected_symbols_are_told_by_block(tmp_path: Path) -> None:
    data = bytearray(a_region())
    for at in (20, 21, 200, 4096 * 3 + 15):
        data[at] ^= 0xFF
    path = tmp_path / "ramoops.bin"
    path.write_bytes(data)
    code, text = run(path)
    assert code == 0
    assert "corrected by block: 0xc: 2, 0x8c: 1" in text
    _, answer = run(path, "--json")
    zone = json.loads(answer)["zones"][0]
    assert zone["corrected_blocks"] == [
        {"offset": 12, "symbols": 2},
        {"offset": 140, "symbols": 1},
    ]


def test_registers_are_named_and_changes_are_marked(tmp_path: Path) -> None:
    now, before = tmp_path / "now", tmp_path / "before"
    now.write_bytes(encode_record(RECORD))
    region = NewRegion(name="uart", data=bytes(14), kind=2, width_bytes=2, stride_bytes=4)
    old = NewRecord(driver=RECORD.driver, device=RECORD.device, regions=[region])
    before.write_bytes(encode_record(old, "raw"))
    _, text = run(now, "--registers", MAPS / "uart-pl011.yaml", "--before", before)
    (line,) = [line for line in text.splitlines() if " FR " in line]
    assert "0x90" in line
    assert "TXFE=0x1" in line
    assert "was 0x0" in line
    _, answer = run(now, "--registers", MAPS / "uart-pl011.yaml", "--json")
    (flags,) = [one for one in json.loads(answer)["records"][0]["registers"] if one["name"] == "FR"]
    assert (flags["offset"], flags["fields"]["TXFE"], flags["fields"]["BUSY"]) == (0x18, 1, 0)


@pytest.mark.parametrize("text", ["- 1", "regions: {uart: {0x0: {fields: {A: 99}}}}", "{"])
def test_a_wrong_register_map_names_its_file(text: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    path = tmp_path / "record"
    path.write_bytes(encode_record(RECORD))
    with pytest.raises(UsageError, match=r"wrong\.yaml"):
        run(path, "--registers", wrong)


def test_a_raw_record_becomes_an_elf_that_readelf_opens(tmp_path: Path) -> None:
    path, out = tmp_path / "record", tmp_path / "record.elf"
    path.write_bytes(encode_record(RECORD, "raw"))
    assert run(path, "--elf", out)[0] == 0
    assert decode_record(out.read_bytes()).state.value == "intact"
    done = subprocess.run(["readelf", "-aW", out], capture_output=True, text=True, check=True)
    assert "uart" in done.stdout
    assert not done.stderr


def test_logs_are_recognised(tmp_path: Path) -> None:
    for name, content, wanted in (
        (
            "dmesg",
            b"Panic#1 Part1\n<6>[    1.000000] x\n\nECC: No errors detected\n",
            "dmesg record",
        ),
        ("console", b"[    1.000000] Booting\n", "console record"),
        ("packed", packed(b"Oops#1 Part1\nbody"), "still compressed"),
        ("zone", b"====1.000002-D\nPanic#1 Part1\n", "contents of a dmesg zone"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        code, text = run(path)
        assert code == 0
        assert wanted in text


def test_text_of_a_board_cannot_command_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"[    1.000000] \x1b]0;owned\x07[bold]\n")
    _, text = run(path)
    assert "\x1b" not in text
    assert "[bold]" in text


def test_storage_of_pstore_zone(tmp_path: Path) -> None:
    body = b"Panic#1 Part1\ntext"
    head = (0x4DFC3AE5).to_bytes(4, "little") + bytes(4) + (7).to_bytes(8, "little") + bytes(8)
    head += bytes(4) + (3).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(4)

    def zone(kind: int, data: bytes) -> bytes:
        words = (SIGNATURE ^ kind, len(data), 0)
        return (b"".join(word.to_bytes(4, "little") for word in words) + data).ljust(4096, b"\0")

    path = tmp_path / "partition"
    path.write_bytes(
        zone(7, b"pmsg") + zone(0, head + body) + zone(9, encode_frames([encode_record(RECORD)]))
    )
    out = tmp_path / "out"
    assert run(path, "--extract", out)[0] == 0
    assert {one.name: one.read_bytes() for one in out.iterdir()} == {
        "pmsg-pstore_blk-0": b"pmsg",
        "dmesg-pstore_blk-0": b"Panic: Total 3 times\n" + body,
        "panicdump-pstore_blk-0": encode_record(RECORD),
    }


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="pipe is not a regular file"):
        run(pipe)
