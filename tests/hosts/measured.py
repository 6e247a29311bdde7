"""Run `farm nightly` and say what it cost: ``python -m tests.hosts.measured OUT.json COMMAND...``.

``working_s`` are the CPU seconds of the controller's own process from the first cycle's begin to
the night's end in the journal; ``controller_s`` those in all, start and report included;
``all_s`` those and of every process that it and its workers have waited for: workers, ssh, agents
on this host. No QEMU is among them, which runs on the boards' hosts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> int:
    out, *command = sys.argv[1:]
    began = time.monotonic()
    with Path(out).with_suffix(".said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said)
    controller_s = 0.0
    at: dict[str, float] = {}
    nights = Path(command[command.index("--out") + 1]) / "nights"
    while process.poll() is None:
        with suppress(OSError, IndexError):
            controller_s = max(controller_s, own_cpu_s(process.pid))
            journal = b"".join(one.read_bytes() for one in nights.glob("*/journal.jsonl"))
            for kind in ("begun", "closed"):
                if b'"entry":"%s"' % kind.encode() in journal:
                    at.setdefault(kind, controller_s)
        time.sleep(0.2)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "working_s": at["closed"] - at["begun"],
        "controller_s": controller_s,
        "all_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - began,
    }
    Path(out).write_text(json.dumps(figures))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
