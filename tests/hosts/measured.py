"""Run `farm nightly` and say what it cost: ``python -m tests.hosts.measured OUT.json COMMAND...``.

``working_s`` are the CPU seconds of the controller's own process from the first cycle's begin to
the night's end in the journal; ``controller_s`` those in all, start and report included;
``all_s`` those and of every process below it on this host: workers, ssh, agents. No QEMU is among
them, which runs on the boards' hosts: ``qemu_s`` are its CPU seconds on all of them, ``busy_s``
those of all that runs on this machine, ``cycles_s`` the seconds of the clock, each from the first
cycle's begin to the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.figures.processes import cpu_s, descendants, machine_cpu_s, own_cpu_s, own_cpu_s_of


def main() -> int:
    out, *command = sys.argv[1:]
    began = time.monotonic()
    with Path(out).with_suffix(".said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said)
    controller_s = all_s = 0.0
    qemus: dict[tuple[int, int], float] = {}
    at: dict[str, tuple[float, float, float, float]] = {}
    nights = Path(command[command.index("--out") + 1]) / "nights"
    while process.poll() is None:
        with suppress(OSError, IndexError):
            controller_s = max(controller_s, own_cpu_s(process.pid))
            # A process that has ended is told of by the one that has waited for it.
            all_s = max(all_s, sum(map(cpu_s, [process.pid, *descendants(process.pid)])))
            qemus.update(own_cpu_s_of("qemu-system"))
            journal = b"".join(one.read_bytes() for one in nights.glob("*/journal.jsonl"))
            for kind in ("begun", "closed"):
                if b'"entry":"%s"' % kind.encode() in journal:
                    now = controller_s, sum(qemus.values()), machine_cpu_s(), time.monotonic()
                    at.setdefault(kind, now)
        time.sleep(0.2)
    working_s, qemu_s, busy_s, cycles_s = (
        end - begin for begin, end in zip(at["begun"], at["closed"], strict=True)
    )
    figures = {
        "working_s": working_s,
        "qemu_s": qemu_s,
        "busy_s": busy_s,
        "cycles_s": cycles_s,
        "controller_s": controller_s,
        "all_s": all_s,
        "wall_s": time.monotonic() - began,
    }
    Path(out).write_text(json.dumps(figures))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
