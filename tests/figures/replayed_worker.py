"""A night's worker at a board that only talks: the bench is the real one, the cycles are not.

It is started as every worker is, opens the board's environment, records its console, and waits as
a cycle does: for the panic, for the kernel's first words, for the prompt. It says so to its
controller, and ends at the end of its orders, with the power off and the line empty.
"""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

from farm.bench.environment import open_bench
from farm.bench.inject import BOOT, PANIC
from farm.nightly.messages import Note
from farm.nightly.worker import Reports

_WAIT_S = 30.0
_QUIET_S = 0.5


def main() -> int:
    """Work on a board until standard input ends."""
    reports = Reports()
    lg_env, folder = (Path(sys.stdin.readline().strip()) for _ in range(2))
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    with open_bench(lg_env) as bench:
        console = bench.console
        console.record_to(folder)
        bench.power.off()
        reports.say(Note(text="ready"))
        sys.stdin.readline()
        threading.Thread(target=listen, daemon=True).start()
        bench.power.on()
        words = (PANIC, BOOT, re.compile(re.escape(bench.options.prompt.encode())))
        names = ("panic", "boot", "shell")
        while not ended.is_set():
            seen = console.wait_for(words, _WAIT_S, "anything")
            reports.say(Note(text=names[seen.index]))
        bench.power.off()
        console.settle(_QUIET_S)
        console.record_to(None)
    reports.say(Note(text="done"))
    return 0
