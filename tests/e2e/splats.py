"""What a kernel that looks for its own mistakes writes when it has found one.

Sources: Linux 6.12, kernel/locking/lockdep.c, mm/kasan/report.c, kernel/sched/core.c,
kernel/panic.c, kernel/rcu/, lib/debugobjects.c, lib/list_debug.c, mm/slub.c.
"""

from __future__ import annotations

import re

_SPLAT = re.compile(
    r"WARNING: |BUG: KASAN|BUG: sleeping function|BUG: scheduling while atomic"
    r"|BUG: using \w+\(\) in preemptible|\[ BUG: |INFO: possible|INFO: trying to register"
    r"|suspicious RCU usage|inconsistent lock state|ODEBUG: |list_\w+ corruption"
    r"|BUG \S+ \(|Kernel panic - not syncing: panic_on_warn"
)
# While the farm talks to the shell the kernel does not write to the console: ask it.
ASK_THE_BOARD = "dmesg | grep -E 'WARNING: |BUG|INFO: |suspicious|inconsistent|ODEBUG'; true"
_PANIC = "Kernel panic - not syncing"


# The base source's own: the first line of a report, and what else is in it.
_OF_THE_BASE = (
    # In an NMI, as a stack overflow is, the dmesg record's zone takes its lock.
    (
        "WARNING: inconsistent lock state",
        ("{IN-NMI} usage", "(&prz->buffer_lock)", " pstore_dump+0x"),
    ),
    # LKDTM counts under a lock that may sleep on a real-time kernel, in an interrupt as well.
    (
        "[ BUG: Invalid wait context ]",
        ("(crash_count_lock)", " lkdtm_kprobe_handler+0x"),
    ),
)
_OURS = re.compile(r"panicdump_\w+\+0x")
_REPORT_LINES = 100


def splats(console: str) -> list[str]:
    """Return the lines in ``console`` that tell of a mistake, wherever they are."""
    lines = console.splitlines()
    return [
        line.strip()
        for number, line in enumerate(lines)
        if _SPLAT.search(line) and not _of_the_base(line, lines[number : number + _REPORT_LINES])
    ]


def _of_the_base(first: str, lines: list[str]) -> bool:
    report = "\n".join(lines)
    known = any(
        begin in first and all(mark in report for mark in marks) for begin, marks in _OF_THE_BASE
    )
    return known and _OURS.search(report) is None


def beside_the_scenario(console: str, prompt: str) -> str:
    """Return ``console`` without what the scenario did on purpose.

    That is from the last ``prompt`` before the first panic, where the trigger was pulled, to the
    panic's own line: all that follows is the panic path, the next boot and the reading back.
    """
    lines = console.splitlines()
    for at, line in enumerate(lines):
        if _PANIC in line:
            pulled = max((n for n in range(at) if prompt in lines[n]), default=at)
            return "\n".join(lines[:pulled] + lines[at:])
    return console
