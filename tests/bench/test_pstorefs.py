from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from farm.bench import pstorefs
from farm.bench.environment import Bench
from farm.bench.pstorefs import CHUNK_BYTES, collect_pstorefs, list_pstore, unlink_records
from farm.errors import BenchError
from farm.model import Capture


@pytest.fixture
def pstore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pstore"
    folder.mkdir()
    real = pstorefs.FOLDER
    monkeypatch.setattr(pstorefs, "LIST_SCRIPT", pstorefs.LIST_SCRIPT.replace(real, str(folder)))
    monkeypatch.setattr(pstorefs, "FOLDER", str(folder))
    return folder


def fill(folder: Path) -> dict[str, bytes]:
    rng = random.Random(1)
    files = {
        "panicdump-ramoops-0": rng.randbytes(700),
        "panicdump-ramoops-2": rng.randbytes(3 * CHUNK_BYTES + 5),
        "panicdump-ramoops-10": bytes(2 * CHUNK_BYTES),
        "panicdump-ramoops-11": b"",
        "dmesg-ramoops-0": b"Panic#1 Part1\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def check(captures: Any, cycle: Path, files: dict[str, bytes]) -> None:
    names = [one.board_name for one in captures]
    assert names == sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    for one in captures:
        assert one.complete, one.note
        data = (cycle / one.path).read_bytes()
        assert data == files[one.board_name]
        assert one.sha256 == hashlib.sha256(data).hexdigest()
        assert one.size_bytes == len(data)
    assert not list(cycle.rglob("*.part*"))


def test_records_arrive_whole_under_names_of_the_farm(
    shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    files = fill(pstore)
    told: list[tuple[int, int]] = []
    captures = collect_pstorefs(
        shell_bench.shell, tmp_path / "cycle", deadline_s=60,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [one.path for one in captures] == [f"captures/pstorefs/{n:04d}.bin" for n in range(4)]
    check(captures, tmp_path / "cycle", files)
    total = sum(len(data) for name, data in files.items() if name.startswith("panicdump"))
    assert told[0] == (0, total)
    assert told[-1] == (total, total)


def test_a_board_without_gzip(
    board: Any, shell_bench: Bench, pstore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fill(pstore)
    script = pstorefs.LIST_SCRIPT.replace("command -v gzip", "false")
    monkeypatch.setattr(pstorefs, "LIST_SCRIPT", script)
    damaged: list[int] = []

    def corrupt(data: bytes) -> bytes:
        if len(data) > 2000 and not damaged:
            damaged.append(1)
            return data[:1000] + b"A" + data[1001:]
        return data

    board.corrupt = corrupt
    captures = collect_pstorefs(shell_bench.shell, tmp_path / "cycle", deadline_s=60)
    assert damaged
    check(captures, tmp_path / "cycle", files)


def test_small_files_travel_together_and_a_damaged_one_spoils_none(
    board: Any, shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    rng = random.Random(2)
    files = {f"panicdump-ramoops-{n}": rng.randbytes(40 + n) for n in range(150)}
    for name, data in files.items():
        (pstore / name).write_bytes(data)
    told: list[int] = []
    captures = collect_pstorefs(
        shell_bench.shell, tmp_path / "cycle", deadline_s=60,
        progress=lambda done, total: told.append(done),
    )  # fmt: skip
    check(captures, tmp_path / "cycle", files)
    assert told == [0, sum(map(len, files.values()))]

    # A file that changes its size between listing and reading does not fit what was listed.
    (pstore / "panicdump-ramoops-9").chmod(0o644)
    listed: list[int] = []

    def grow(data: bytes) -> bytes:
        if b"size " in data and not listed:
            listed.append(1)
            (pstore / "panicdump-ramoops-9").write_bytes(b"grown" * 100)
        return data

    board.corrupt = grow
    again = collect_pstorefs(shell_bench.shell, tmp_path / "again", deadline_s=60)
    assert listed
    assert [one.board_name for one in again if not one.complete] == ["panicdump-ramoops-9"]


def test_a_damaged_chunk_is_asked_for_again_and_only_that(
    board: Any, shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    files = fill(pstore)
    lines: list[int] = []

    def corrupt(data: bytes) -> bytes:
        lines.append(len(data))
        if sum(lines) > 100_000:
            board.corrupt = lambda rest: rest
            return data[:10] + b"\r\n[   5.0] random: crng init done\r\n" + data[10:]
        return data

    before = shell_bench.console.stream.received_bytes
    board.corrupt = corrupt
    captures = collect_pstorefs(shell_bench.shell, tmp_path / "cycle", deadline_s=60)
    assert board.corrupt is not corrupt
    check(captures, tmp_path / "cycle", files)
    assert shell_bench.console.stream.received_bytes - before < 550_000


def test_after_a_lost_port_only_what_is_missing_is_asked_for(
    board: Any, shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    files = fill(pstore)

    partial: list[Capture] = []

    def unplug(done: int, total: int) -> None:
        if done > CHUNK_BYTES:
            board.hang_up()

    with pytest.raises(BenchError) as caught:
        collect_pstorefs(
            shell_bench.shell,
            tmp_path / "cycle",
            deadline_s=60,
            progress=unplug,
            captures=partial,
        )
    assert caught.value.part == "serial"
    assert {one.complete for one in partial} == {True, False}
    assert all((tmp_path / "cycle" / one.path).is_file() for one in partial)
    assert list((tmp_path / "cycle").rglob("*.part"))
    shell_bench.ensure_shell()
    told: list[int] = []
    captures = collect_pstorefs(
        shell_bench.shell, tmp_path / "cycle", deadline_s=60,
        progress=lambda done, total: told.append(done),
    )  # fmt: skip
    assert told[0] > CHUNK_BYTES
    check(captures, tmp_path / "cycle", files)


def test_what_never_arrives_whole_is_incomplete_not_an_error(
    board: Any, shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    fill(pstore)
    board.corrupt = lambda data: data.replace(b"Q", b"R") if len(data) > 200 else data
    captures = collect_pstorefs(
        shell_bench.shell, tmp_path / "cycle", deadline_s=60, prefix="panicdump-ramoops-2"
    )
    (one,) = captures
    assert not one.complete
    assert "chunks did not arrive" in one.note
    assert (tmp_path / "cycle" / one.path).exists()


def test_hostile_names_are_shown_and_left_alone(
    shell_bench: Bench, pstore: Path, tmp_path: Path
) -> None:
    files = fill(pstore)
    for name in ("$(touch owned)", "-rf", "a b\nc", "panicdump-\x1b[2J", ".hidden"):
        (pstore / name).write_bytes(b"x")
    listing = list_pstore(shell_bench.shell)
    assert {one.name for one in listing.files} == set(files)
    assert len(listing.odd_names) == 5
    assert not any("\x1b" in name or "\n" in name for name in listing.odd_names)
    captures = collect_pstorefs(shell_bench.shell, tmp_path / "cycle", deadline_s=60)
    assert len([one for one in captures if not one.complete]) == 5
    assert all((tmp_path / "cycle" / one.path).is_file() for one in captures)
    assert not list(tmp_path.rglob("owned"))
    for name in ("../etc/passwd", "-rf", "a b", "x;y", ""):
        with pytest.raises(BenchError, match="no name that"):
            unlink_records(shell_bench.shell, [name])


def test_only_panicdump_s_files_are_summed(shell_bench: Bench, pstore: Path) -> None:
    files = fill(pstore)
    for one in list_pstore(shell_bench.shell).files:
        data = files[one.name]
        assert one.size_bytes == len(data)
        ours = one.name.startswith("panicdump-")
        assert one.sha256 == (hashlib.sha256(data).hexdigest() if ours else "")


def test_records_are_removed(shell_bench: Bench, pstore: Path) -> None:
    fill(pstore)
    unlink_records(shell_bench.shell, ["panicdump-ramoops-0", "panicdump-ramoops-2"])
    assert not (pstore / "panicdump-ramoops-0").exists()
    assert (pstore / "dmesg-ramoops-0").exists()
    unlink_records(shell_bench.shell, [])


def test_an_empty_pstore(shell_bench: Bench, pstore: Path, tmp_path: Path) -> None:
    assert collect_pstorefs(shell_bench.shell, tmp_path / "cycle", deadline_s=60) == ()


@pytest.mark.parametrize(
    "output",
    [
        "0" * 64 + "  panicdump-a\n",
        "rm: cannot\n",
        "size 5 panicdump-a\n",
        "size 99999999999 panicdump-a\n" + "0" * 64 + "  panicdump-a\n",
        "size 1 ../x\n" + "0" * 64 + "  ../x\n",
    ],
)
def test_an_impossible_listing_is_refused(output: str) -> None:
    with pytest.raises(BenchError):
        pstorefs.parse_listing(output)
