"""What a cycle of a night costs the controller's host in CPU time, QEMU left out.

    python -m tests.figures.cycle_cost [--cycles 20] [--scenario sysrq-c] [--lg-env FILE]

One board, one night. While it runs, the CPU seconds of `farm nightly` and of its worker are read
whenever the journal tells of a finished cycle; the cost of a cycle is the slope of a line through
these, so that what is loaded once does not count. Commands that the bench runs for a cycle, and the
night's end with its report and exports, are given apart. Fails above 0.2 s a cycle.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from farm.nightly.journal import JOURNAL_NAME
from tests.figures.processes import cpu_s, descendants, own_cpu_s

LIMIT_S = 0.2
FARM = str(Path(sys.executable).with_name("farm"))


def _finished(out: Path) -> int:
    found = list((out / "nights").glob(f"*/{JOURNAL_NAME}"))
    return found[0].read_bytes().count(b'{"entry":"finished"') if found else 0


def measure(lg_env: Path, scenario: str, cycles: int) -> dict[str, float]:
    """Run a night and return CPU seconds: per cycle by process, and of the night's two ends."""
    with tempfile.TemporaryDirectory(prefix="farm-cost-") as name:
        out = Path(name) / "reports"
        plan = Path(name) / "plan.yaml"
        plan.write_text(
            f"name: cost\nboards: ['{lg_env.resolve()}']\nscenarios: ['{scenario}']\n"
            f"repeats: {cycles}\nflash: none\n"
        )
        samples: list[tuple[int, float, float, float]] = []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        night = subprocess.Popen(
            [FARM, "nightly", str(plan), "--out", str(out), "--json"], stdout=subprocess.DEVNULL
        )
        done = 0
        while night.poll() is None:
            now = _finished(out)
            if now > done:
                done = now
                # Two levels: what a worker is forked from belongs to the controller.
                below = {one: own_cpu_s(one) for one in descendants(night.pid)}
                commands = sum(cpu_s(one) for one in below) - sum(below.values())
                samples.append((done, own_cpu_s(night.pid), sum(below.values()), commands))
                print(f"{done}/{cycles} cycles, {samples[-1]}", file=sys.stderr)
            time.sleep(0.05)
        wall_s = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if night.returncode != 0:
            sys.exit(f"the night ended with {night.returncode}")
    table = np.array(samples[2:])
    slopes = [float(np.polyfit(table[:, 0], table[:, at], 1)[0]) for at in (1, 2, 3)]
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cycles": done,
        "wall_s_per_cycle": round(wall_s / max(done, 1), 2),
        "controller_s": round(slopes[0], 4),
        "worker_s": round(slopes[1], 4),
        "commands_s": round(slopes[2], 4),
        "whole_night_s": round(whole, 2),
        "outside_of_cycles_s": round(whole - done * sum(slopes), 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.figures.cycle_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--scenario", default="sysrq-c")
    parser.add_argument("--lg-env", type=Path, default=Path("devices/virtual.yaml"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.lg_env, asked.scenario, asked.cycles)
    cycle_s = found["controller_s"] + found["worker_s"]
    if asked.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['cycles']} cycles of {asked.scenario}, {found['wall_s_per_cycle']} s each: "
            f"{cycle_s:.3f} CPU s a cycle (controller {found['controller_s']:.3f}, worker "
            f"{found['worker_s']:.3f}), and {found['commands_s']:.3f} s of the bench's commands; "
            f"outside of cycles {found['outside_of_cycles_s']:.1f} s; "
            f"load {os.getloadavg()[0]:.1f}"
        )
    if cycle_s > LIMIT_S:
        sys.exit(f"more than {LIMIT_S} CPU s a cycle")


if __name__ == "__main__":
    main()
