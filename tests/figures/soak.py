"""Hundreds of panics over mixed scenarios: what leaks, and is every ERROR explained?; `make soak`.

    python -m tests.figures.soak [--cycles 500] [--lg-env FILE] [--seed N] [--json]

One process makes run after run. After each, with its bench closed, are counted: the process's file
descriptors, threads, children and memory, its garbage collected; what the bench's programs left
running; and what lies in the state folder. Within a run the same is sampled of the processes that
keep the board. Growth is the slope of a line through the samples, the first third left out: until
then code is loaded, and the heap grows to what the largest run needs. Exit code 1 for a FAIL, an
unexplained ERROR or a leak.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from farm.model import Cycle, Policy, Verdict
from farm.run.progress import RunProgress
from farm.run.session import Session
from farm.scenarios import CATALOGUE, Scenario
from farm.signals import termination_as_interrupt
from farm.virtual.layout import state_root
from tests.figures.processes import descendants

RUN_CYCLES = 25
SETTLE_S = 15.0
# Of those that wait for a detector, every so many cycles one: they are all time and no work.
SLOW_EVERY = 20
# What may remain after 100 cycles: the noise of an allocator, not a leak of a cycle's data.
LIMITS = {"fds": 0.5, "threads": 0.5, "children": 0.5, "state_kib": 64.0, "rss_kib": 2048.0}


def _proc(pid: int | str) -> dict[str, int]:
    folder = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    return {
        "fds": len(list((folder / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "rss_kib": int(status["VmRSS"].split()[0]),
    }


def _disk_kib(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(one.lstat().st_blocks for one in folder.rglob("*") if one.is_file()) // 2


def sample_controller() -> dict[str, int]:
    """What this process holds, with no bench open; a board that goes down is waited for."""
    end = time.monotonic() + SETTLE_S
    while descendants(os.getpid()) and time.monotonic() < end:
        time.sleep(0.2)
    gc.collect()
    return {
        **_proc("self"),
        "children": len(descendants(os.getpid())),
        "state_kib": _disk_kib(state_root()),
    }


def sample_board(board: str) -> dict[str, int]:
    """What the process that keeps a virtual board holds; nothing for another board."""
    state = state_root() / board / "state.json"
    try:
        pid = json.loads(state.read_text())["pid"]
        return {**_proc(pid), "children": len(descendants(pid))}
    except (OSError, ValueError, KeyError):
        return {}


def mixed(cycles: int, seed: int) -> list[Scenario]:
    """Scenarios in a random order; every SLOW_EVERY-th is one that waits for a detector."""
    chance = random.Random(seed)
    quick = [one for one in CATALOGUE if one.panic_within_s <= 15 and "1000" not in one.name]
    slow = [one for one in CATALOGUE if one.panic_within_s > 15]
    return [chance.choice(slow if n % SLOW_EVERY == 0 else quick) for n in range(1, cycles + 1)]


def growth(samples: list[dict[str, int]], every: int) -> dict[str, float]:
    """Growth of each number per 100 cycles, the samples being ``every`` cycles apart."""
    if len(samples) < 3:
        return {}
    at = np.arange(len(samples)) * every / 100
    return {
        key: round(float(np.polyfit(at, [one[key] for one in samples], 1)[0]), 3)
        for key in samples[0]
    }


def run(lg_env: Path, scenarios: list[Scenario], out: Path) -> tuple[list[Cycle], list[Any]]:
    """One run; returns its cycles and the samples of the board's process."""
    boards = []
    with RunProgress(len(scenarios), quiet=True) as progress:
        session = Session(
            lg_env,
            out,
            progress,
            policy=Policy(),
            command=("python", "-m", "tests.figures.soak"),
            planned_cycles=len(scenarios),
        )
        with session:
            for number, scenario in enumerate(scenarios):
                _, fault = session.cycle(scenario, 1)
                if session.interrupted or (fault and not session.recover(fault)):
                    break
                if number % 5 == 4 and (sample := sample_board(session.options.board)):
                    boards.append(sample)
    assert session.run is not None
    return list(session.run.cycles), boards


def soak(lg_env: Path, cycles: int, seed: int, keep: bool) -> dict[str, Any]:
    """Run and count."""
    wanted = mixed(cycles, seed)
    out = Path(tempfile.mkdtemp(prefix="farm-soak-"))
    verdicts: Counter[str] = Counter()
    bad: list[dict[str, str]] = []
    samples = [sample_controller()]
    boards: list[dict[str, float]] = []
    done, began, disk_kib = 0, time.monotonic(), 0
    try:
        for at in range(0, cycles, RUN_CYCLES):
            found, board_samples = run(lg_env, wanted[at : at + RUN_CYCLES], out)
            done += len(found)
            verdicts.update(one.result.verdict.value for one in found)
            bad += [
                {
                    "scenario": one.scenario,
                    "verdict": one.result.verdict.value,
                    "why": one.result.why,
                    "folder": one.folder,
                }
                for one in found
                if one.result.verdict in (Verdict.FAIL, Verdict.ERROR)
                # An interruption is no error of the bench.
                and not (one.input.fault and one.input.fault.part == "controller")
            ]
            samples.append(sample_controller())
            boards.append(growth(board_samples, 5))
            disk_kib += _disk_kib(out)
            print(f"{done}/{cycles} cycles, {dict(verdicts)}, {samples[-1]}", file=sys.stderr)
            if not keep and not bad:
                shutil.rmtree(out, ignore_errors=True)
            if len(found) < len(wanted[at : at + RUN_CYCLES]):
                break
    except KeyboardInterrupt:
        print("interrupted: what there is so far", file=sys.stderr)
    if not bad and not keep:
        shutil.rmtree(out, ignore_errors=True)
    slopes = growth(samples[max(1, len(samples) // 3) :], RUN_CYCLES)
    keys = {key for one in boards for key in one}
    of_board = {
        key: round(float(np.median([one[key] for one in boards if key in one])), 3) for key in keys
    }
    leaks = [key for key, slope in slopes.items() if slope > LIMITS[key]]
    leaks += [f"board's {key}" for key, slope in of_board.items() if slope > 4 * LIMITS[key]]
    return {
        "cycles": done,
        "seed": seed,
        "scenarios": len({one.name for one in wanted[:done]}),
        "seconds_per_cycle": round((time.monotonic() - began) / max(done, 1), 2),
        "verdicts": dict(verdicts),
        "not_pass": bad,
        "report_kib_per_cycle": round(disk_kib / max(done, 1), 1),
        "controller": samples,
        "controller_growth_per_100": slopes,
        "board_growth_per_100": of_board,
        "leaks": leaks,
        "folder": str(out) if out.is_dir() else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.figures.soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--lg-env", type=Path, default=Path("devices/virtual.yaml"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the reports")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with termination_as_interrupt():
        found = soak(asked.lg_env, asked.cycles, asked.seed, asked.keep)
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['cycles']} cycles over {found['scenarios']} scenarios: {found['verdicts']}")
        for name in ("controller_growth_per_100", "board_growth_per_100"):
            words = ", ".join(f"{key} {slope:+}" for key, slope in found[name].items())
            print(f"{name.replace('_', ' ')} cycles: {words}")
        for one in found["not_pass"]:
            print(f"{one['verdict']} {one['scenario']} ({one['folder']}): {one['why']}")
        print(f"leaks: {', '.join(found['leaks']) or 'none'}; reports in {found['folder']}")
    sys.exit(bool(found["leaks"] or found["not_pass"]))


if __name__ == "__main__":
    main()
