"""What a sign-off costs in a history of 100,000 cycles, beside a page of no cycle; `make bench`.

    python -m tests.figures.signoff [--cycles N] [--history PATH] [--one-build]

The history is filled through its own store, or taken as it is when PATH exists. `farm signoff` is
run as a command, PDF included, for one build of many, or for that of all cycles; its processor
time is compared with that of the same command on an empty history. Below 5 s is what is wanted of
an idle machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from farm.history import open_history
from tests.history.nights import LARGE, fill

_FARM = Path(sys.executable).with_name("farm")
_POLICY = """\
name: one of many builds
rule: speed
kernel: {build_id: "%s"}
allow_virtual: true
required:
  - boards: [board-0, board-1, board-2, board-3]
    scenarios: [sysrq-c, lkdtm-panic, lkdtm-bug]
    channels: [pstorefs]
    repeats: 3
drivers: ["driver-*"]
budget_bytes: {"driver-*": 1000000}
failure_rate: {max: 0.01}
bench_errors: {max_rate: 0.1}
"""


def signed_off(folder: Path, policy: Path, history: Path) -> tuple[float, float]:
    """Wall and processor seconds of one sign-off."""
    out = folder / f"out-{time.monotonic_ns()}"
    before, wall = os.times(), time.monotonic()
    asked = ["signoff", policy, "--nights", folder, "--history", f"sqlite:///{history}"]
    command = list(map(str, [_FARM, *asked, "--out", out]))
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = os.times()
    # The runs' folders were never written: NO-GO for want of evidence, and nothing else.
    assert done.returncode == 1, done.returncode
    assert (out / "signoff.pdf").exists()
    used = after.children_user + after.children_system
    return time.monotonic() - wall, used - before.children_user - before.children_system


def main() -> None:
    """Fill, sign off, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    parser.add_argument("--history", type=Path)
    parser.add_argument("--one-build", action="store_true", help="all cycles are of one build")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = (given.history or folder / "history.sqlite").absolute()
        with open_history(f"sqlite:///{path}", out=folder) as history:
            if not history.nights(limit=1):
                shape = replace(LARGE, build_id="f00dcafe" * 5 if given.one_build else "")
                fill(history, given.cycles, shape)
            newest = history.nights(limit=1)[0]
            build = history.cycles(night_id=newest.night_id)[0].build_id or ""
        policy = folder / "policy.yaml"
        policy.write_text(_POLICY % build)
        signed_off(folder, policy, folder / "empty.sqlite")
        _, empty = signed_off(folder, policy, folder / "empty.sqlite")
        wall, used = min(signed_off(folder, policy, path) for _ in range(3))
    print(f"a sign-off in {path.name}: {wall:.1f} s, of the processor {used:.1f} s")
    print(f"beside one of an empty history: {used / empty:.2f} x")


if __name__ == "__main__":
    main()
