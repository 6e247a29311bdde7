"""``farm run`` on a real panicking kernel: every verdict, from the command line."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from tests.e2e.conftest import Board, Outcome
from tests.figures.processes import cpu_s, descendants

pytestmark = pytest.mark.virtual

# Arming, reading back and removing cost 0.80 to 0.86 of a boot in the best of fifteen cycles.
MOST_BOOTS_ADDED = 1.2
NO_WRITE = "echo 0 > /sys/module/panicdump/parameters/enabled"


def captures(board: Board, outcome: Outcome) -> list[Path]:
    run = board.out / outcome.run["run_id"]
    return [
        run / cycle["folder"] / capture["path"]
        for cycle in outcome.cycles
        for capture in cycle["input"]["captures"]
    ]


def cpu_s_of_all() -> float:
    """Seconds that all processors were busy, or taken away by a hypervisor: proc(5), /proc/stat."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_s_of(board: Board) -> float:
    """Seconds of the board's process, of its QEMUs, and of this process and its children."""
    pid = board.status()[1]["pid"]
    theirs = sum(cpu_s(one) for one in (pid, *descendants(pid)))
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return theirs + sum(u.ru_utime + u.ru_stime for u in own)


def run_beside_others(board: Board, *arguments: str) -> tuple[Outcome, float]:
    """Run; also return the share of this computer, 0 to 1, that others had meanwhile."""
    before_s, all_s, own_s = time.monotonic(), cpu_s_of_all(), cpu_s_of(board)
    outcome = board.run(*arguments)
    others_s = (cpu_s_of_all() - all_s) - (cpu_s_of(board) - own_s)
    elapsed_s = (time.monotonic() - before_s) * len(os.sched_getaffinity(0))
    return outcome, max(0.0, others_s / elapsed_s)


def least_boots_added(outcome: Outcome) -> float:
    """What the farm adds to the board's own time, in boots of the board, in its best cycle.

    A boot is work of the same emulated processor, so that the figure is the same on a slow computer
    and a fast one. Wall to board's own time is not: a second of the board's is the kernel's wait
    after the panic, on any computer.
    """
    return min(
        float((cycle["wall_s"] - cycle["board_s"]) / cycle["input"]["panic"]["reset_to_shell_s"])
        for cycle in outcome.cycles
    )


def test_three_ways_to_panic_five_times_each(board: Board) -> None:
    scenarios = ("--scenario", "sysrq-c", "--scenario", "break-c", "--scenario", "lkdtm-bug")
    outcome, others = run_beside_others(board, *scenarios, "--repeat", "5")
    assert outcome.code == 0, outcome.stderr
    assert outcome.run["totals"]["PASS"] == 15
    # Other work on this computer costs the farm more than the board. So the cycle that was
    # disturbed least is held against the limit, with what others took of the computer added, and
    # once more if that was not steady; run.json has the figures of the whole run.
    for _ in range(3):
        if least_boots_added(outcome) <= MOST_BOOTS_ADDED * (1 + others):
            break
        outcome, others = run_beside_others(board, "--scenario", "lkdtm-bug", "--repeat", "5")
        assert outcome.code == 0, outcome.stderr
    assert least_boots_added(outcome) <= MOST_BOOTS_ADDED * (1 + others)
    assert outcome.run["wall_to_board"] == pytest.approx(
        outcome.run["wall_s"] / outcome.run["board_s"], abs=0.001
    )
    devices = outcome.cycles[0]["result"]["devices"]
    assert sum(row["driver"] == "panicdump-sample" for row in devices) >= 8
    assert any(row["driver"] != "panicdump-sample" for row in devices)


def test_every_elf_record_pleases_other_readers(board: Board) -> None:
    outcome = board.run()
    assert outcome.code == 0, outcome.stderr
    files = captures(board, outcome)
    assert len(files) >= 10
    for path in files:
        read = subprocess.run(
            ["readelf", "--all", "--wide", str(path)], capture_output=True, text=True, check=True
        )
        assert read.stderr == ""
        assert "arning" not in read.stdout
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            assert elf["e_type"] == "ET_CORE"
            names = [section.name for section in elf.iter_sections()]
            assert ".note.panicdump" in names
            assert ".note.gnu.build-id" in names
            notes = [
                note
                for segment in elf.iter_segments()
                if isinstance(segment, NoteSegment)
                for note in segment.iter_notes()
            ]
            # A note without content is left out, and its section is empty.
            registered = [
                section.name.removeprefix(".note.")
                for section in list(elf.iter_sections())[3:]
                if ".note." in section.name and section["sh_size"]
            ]
            own = ["PANICDUMP", "PANICDUMP", "GNU"]
            assert [note["n_name"] for note in notes] == own + registered


def test_the_raw_form_passes_too(make_board: Callable[..., Board]) -> None:
    board = make_board("raw", "--append", "panicdump.format=raw")
    outcome = board.run()
    assert outcome.code == 0, outcome.stderr
    assert outcome.cycles[0]["input"]["manifest"]["format"] == "raw"
    assert all(path.read_bytes().startswith(b"PANICDMP") for path in captures(board, outcome))
    # The run has started this board by itself, so it has stopped it as well.
    assert board.status()[0] == 1


@pytest.mark.parametrize("seed", ["1", "2"])
def test_flipped_bits_without_ecc_fail_with_device_and_offset(board: Board, seed: str) -> None:
    board.fault("flip", "--bits", "64", "--seed", seed, "--region", "panicdump", "--used-only")
    outcome = board.run()
    assert outcome.code == 1, outcome.stderr
    found = [f for f in outcome.findings("corrupt") if f["device"]]
    assert found
    assert all(isinstance(f["evidence"]["offset"], int) for f in found)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_flipped_bits_with_ecc_are_corrected_and_counted(
    make_board: Callable[..., Board], seed: str
) -> None:
    board = make_board(f"ecc-{seed}", "--ecc-size", "16")
    board.up()
    board.fault(
        *("flip", "--bits", "64", "--seed", seed, "--region", "panicdump"),
        *("--used-only", "--max-per-block", "8"),
    )
    outcome = board.run()
    board.down()
    assert outcome.code == 0, outcome.stderr
    assert 0 < outcome.cycles[0]["result"]["corrected_symbols"] <= 64
    assert outcome.findings("ecc corrected")


def test_a_panic_whose_write_is_suppressed_fails(board: Board) -> None:
    outcome = board.run("--before-panic", NO_WRITE)
    assert outcome.code == 1, outcome.stderr
    assert outcome.findings("missing")


def test_an_old_dump_is_never_taken_for_the_new_one(make_board: Callable[..., Board]) -> None:
    board = make_board("stale")
    outcome = board.run(
        *("--keep-records", "--repeat", "2"),
        *("--before-panic", f'[ -z "$(ls /sys/fs/pstore | grep panicdump)" ] || {NO_WRITE}'),
    )
    assert outcome.code == 1, outcome.stderr
    assert [c["result"]["verdict"] for c in outcome.cycles] == ["PASS", "FAIL"]
    assert outcome.findings("stale")
    second = outcome.cycles[1]["result"]
    assert not [f for f in second["findings"] if f["kind"] == "intact"]


def test_a_required_driver_that_never_registered_fails(board: Board) -> None:
    outcome = board.run("--require", "adreno-gpu")
    assert outcome.code == 1
    assert outcome.findings("never registered")[0]["driver"] == "adreno-gpu"
    assert "adreno-gpu" in outcome.cycles[0]["result"]["why"]


def test_a_device_over_its_budget_fails(board: Board) -> None:
    outcome = board.run("--budget", "panicdump-sample.5=65536")
    assert outcome.code == 1
    found = outcome.findings("over budget")
    assert [f["device"] for f in found] == ["panicdump-sample.5"]


def test_a_total_over_its_budget_fails(board: Board) -> None:
    outcome = board.run("--total-budget", "1000")
    assert outcome.code == 1
    assert outcome.findings("over budget")
