"""The same panic read by several channels, and a kernel flashed in each way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Board

pytestmark = pytest.mark.virtual

MakeBoard = Callable[..., Board]


def agreed(outcome: object, findings: list[dict[str, object]]) -> str:
    assert [one["verdict"] for one in findings] == ["PASS"], outcome
    return str(findings[0]["message"])


def test_five_channels_agree_on_every_record(make_board: MakeBoard) -> None:
    board = make_board("channels")
    outcome = board.run("--channel", "pstorefs,sahara,ramdump,fastboot,firehose")
    assert outcome.code == 0, outcome.stderr
    assert "byte-identical" in agreed(outcome, outcome.findings("channels agree"))
    reads = {one["channel"]: one for one in outcome.cycles[0]["input"]["channels"]}
    assert set(reads) == {"pstorefs", "sahara", "ramdump", "fastboot", "firehose"}
    assert reads["sahara"]["received_bytes"] <= 1.01 * reads["sahara"]["wanted_bytes"]


def test_a_raw_channel_alone_gives_the_same_verdict(make_board: MakeBoard) -> None:
    board = make_board("raw-alone", "--ecc-size", "16")
    outcome = board.run("--channel", "sahara")
    assert outcome.code == 0, outcome.stderr
    rows = outcome.cycles[0]["result"]["devices"]
    assert len(rows) > 1
    assert {one["verdict"] for one in rows} == {"PASS"}


@pytest.mark.parametrize(
    ("way", "channels"),
    [("fastboot", "sahara,pstorefs,fastboot"), ("edl", "sahara,pstorefs,firehose")],
)
def test_a_board_without_a_kernel_is_flashed_and_runs_just_that_one(
    make_board: MakeBoard, way: str, channels: str
) -> None:
    board = make_board(f"flash-{way}")
    board.up()
    board.farm("virtual", "press", "fastboot", "on", "--name", board.name)
    board.farm(*board.up_arguments, "--on")
    for slot in "ab":
        done = board.farm(
            "virtual", "exec", "--name", board.name, "--", "fastboot", "erase", f"boot_{slot}"
        )
        assert done.returncode == 0, done.stderr
    board.farm("virtual", "press", "fastboot", "off", "--name", board.name)
    outcome = board.run("--flash", way, "--channel", channels)
    assert outcome.code == 0, outcome.stderr
    assert "byte-identical" in agreed(outcome, outcome.findings("channels agree"))


@pytest.mark.parametrize("state", ["crash", "edl"])
def test_a_controller_killed_with_the_board_in_a_boot_mode_is_made_good_by_the_next_run(
    make_board: MakeBoard, state: str
) -> None:
    board = make_board(f"killed-{state}")
    board.up()
    board.farm("virtual", "fault", "usb", "rate-mb-s", "20", "--name", board.name)
    channels, word = ("ramdump", "ramdump") if state == "crash" else ("firehose", "firehose")
    running = board.start("--channel", f"pstorefs,{channels}")
    running.wait_for(f"collect: {word}")
    deadline = time.monotonic() + 20
    while board.status()[1]["condition"] != state:
        assert time.monotonic() < deadline
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    assert board.status()[1]["condition"] == state
    board.farm("virtual", "fault", "clear", "--name", board.name)
    outcome = board.run()
    assert outcome.code == 0, outcome.stderr
    saved = list((board.out / outcome.run["run_id"]).glob("rescued/crash-*/00-*.bin"))
    assert len(saved) == (1 if state == "crash" else 0)
    assert all(Path(one).stat().st_size == 512 << 20 for one in saved)


DOWNLOAD_MODE = "devmem 0x5fdff010 32"


def test_crash_mode_that_nobody_asked_for_is_noticed_at_once(make_board: MakeBoard) -> None:
    board = make_board("unasked")
    outcome = board.run("--before-panic", f"{DOWNLOAD_MODE} 0x10")
    assert outcome.code == 0, outcome.stderr
    assert "left crash mode, which no channel asked for" in outcome.stderr
    # The deadline of a reset is 60 s.
    assert outcome.cycles[0]["stages_s"]["reset"] < 30


def test_a_board_that_boots_instead_of_waiting_in_crash_mode_is_noticed_at_once(
    make_board: MakeBoard,
) -> None:
    board = make_board("unkept")
    outcome = board.run("--channel", "sahara", "--before-panic", f"{DOWNLOAD_MODE} 0")
    assert outcome.code == 3, outcome.stderr
    fault = outcome.cycles[0]["input"]["fault"]
    assert "the board is not in crash mode after the panic, but boots" in fault["message"]
    assert outcome.cycles[0]["stages_s"]["collect"] < 30


def test_ctrl_c_in_a_dump_keeps_what_the_board_holds_and_the_dump_goes_on(
    make_board: MakeBoard,
) -> None:
    board = make_board("ctrl-c")
    board.up()
    board.farm("virtual", "fault", "usb", "rate-mb-s", "40", "--name", board.name)
    running = board.start("--channel", "ramdump")
    running.wait_for("collect: ramdump")
    # A line of plain progress, with bytes and rate.
    running.wait_for("MiB/s", 60.0)
    running.process.send_signal(signal.SIGINT)
    outcome = running.wait()
    assert outcome.code == 3, outcome.stderr
    assert "of 512.0 MiB" in outcome.stderr
    folder = next(board.out.glob("*/cycles/*/captures/ramdump"))
    assert f"farm dump --lg-env {board.lg_env} --to {folder}" in outcome.stderr
    assert board.status()[1]["condition"] == "crash"
    had = next(folder.glob("*.part")).stat().st_size
    assert had > 10 << 20
    board.farm("virtual", "fault", "clear", "--name", board.name)
    done = board.farm(
        "dump", "--lg-env", str(board.lg_env), "--to", str(folder), "--json", "--reset"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["finished"]
    file = folder / said["files"][0]["file"]
    with file.open("rb") as opened:
        assert hashlib.file_digest(opened, "sha256").hexdigest() == said["files"][0]["sha256"]
    assert not list(folder.glob("earlier-*")), "it was begun anew"
    done = board.farm("dump", "--lg-env", str(board.lg_env), "--to", str(folder))
    assert done.returncode == 3
    assert "is not in crash mode" in done.stderr
