"""What processes of Linux use, read from /proc: CPU seconds, memory, descendants."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

# What stands for each field of a process that is not there any more; no state has that letter.
_GONE = "0"


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [_GONE] * 20


def name_of(pid: int) -> str:
    """The name of a process; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but being waited for."""
    return _fields(pid)[0] in (_GONE, "Z")


def own_cpu_s(pid: int) -> float:
    """CPU seconds of a process itself; 0 when it is gone."""
    return sum(int(one) for one in _fields(pid)[11:13]) * _TICK_S


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those of its children that it has waited for."""
    return sum(int(one) for one in _fields(pid)[11:15]) * _TICK_S


def own_cpu_s_of(name: str) -> dict[tuple[int, int], float]:
    """CPU seconds of each process whose name begins so, by its id and its start."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with suppress(OSError):
            if (path / "comm").read_text().startswith(name):
                found[pid, int(_fields(pid)[19])] = own_cpu_s(pid)
    return found


def command_lines_with(text: str) -> list[str]:
    """The command lines in which ``text`` stands, with zero bytes between their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text in (words := path.read_bytes().decode(errors="replace")):
                found.append(words)
    return found


def machine_cpu_s() -> float:
    """CPU seconds of all that runs on this machine, whatever namespace it is in."""
    user, nice, system, _idle, _iowait, irq, softirq = (
        int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) * _TICK_S


def descendants(of: int) -> list[int]:
    """The processes below one, whatever depth."""
    found, todo = [], [of]
    while todo:
        pid = todo.pop()
        children: list[int] = []
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children += [int(word) for word in task.read_text().split()]
            except OSError:
                continue
        found += children
        todo += children
    return found


@dataclass(frozen=True)
class Memory:
    """In KiB: resident, its share (pages divided by who maps them), and what is its own alone."""

    rss_kib: int
    pss_kib: int
    own_kib: int


def memory(pid: int) -> Memory:
    """What a process holds; nothing when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0, 0)
    said = {name: int(rest.split()[0]) for name, _, rest in (one.partition(":") for one in lines)}
    return Memory(said["Rss"], said["Pss"], said["Private_Dirty"] + said["Private_Clean"])
