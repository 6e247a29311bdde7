"""What a scenario needs and the board has: asked of the live board, so that a SKIP names a thing.

Needs are words: `sysctl kernel/panic_on_warn`, `parameter panicdump.format`, `LKDTM type BUG`,
`LKDTM point DIRECT`, `config KPROBES`, `command taskset`, `file /dev/watchdog`, `cpus 2`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from farm.bench.manifest import LKDTM, MOUNT_DEBUGFS
from farm.bench.options import BenchOptions
from farm.bench.shell import BoardShell
from farm.scenarios import CATALOGUE, Scenario

_CPUS = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def proc_path(need: str) -> str:
    """The file of a need `sysctl NAME` or `parameter MODULE.NAME`."""
    kind, _, name = need.partition(" ")
    if kind == "sysctl":
        return f"/proc/sys/{name}"
    module, _, parameter = name.partition(".")
    return f"/sys/module/{module}/parameters/{parameter}"


def _of(kind: str, needs: Iterable[str]) -> list[str]:
    return sorted({need for need in needs if need.startswith(f"{kind} ")})


def probe_script(needs: Iterable[str]) -> str:
    """A script that says which of ``needs`` are there, one line each, in few processes."""
    needs = tuple(needs)
    lines = [MOUNT_DEBUGFS]
    files = {need: proc_path(need) for kind in ("sysctl", "parameter") for need in _of(kind, needs)}
    files |= {need: need.removeprefix("file ") for need in _of("file", needs)}
    lines += [f"[ -e {shlex.quote(path)} ] && echo {need!r}" for need, path in files.items()]
    for need in _of("command", needs):
        lines.append(f"command -v {need.removeprefix('command ')} >/dev/null && echo {need!r}")
    folder = LKDTM.rpartition("/")[0]
    lines.append(f"for f in {folder}/*; do echo LKDTM point ${{f##*/}}; done")
    lines.append(f"while read -r x; do echo LKDTM type $x; done < {LKDTM}")
    lines.append("read -r x < /sys/devices/system/cpu/online && echo online $x")
    if configs := _of("config", needs):
        words = "|".join(need.removeprefix("config ") for need in configs)
        lines.append("[ -e /proc/config.gz ] && echo config known")
        lines.append(f"zcat /proc/config.gz | grep -E '^CONFIG_({words})=[ym]'")
    return "{\n" + "\n".join(lines) + "\n} 2>/dev/null\n:"


def parse_features(said: str, needs: Iterable[str]) -> frozenset[str]:
    """The needs that the board fulfils; an unknown configuration is taken for a complete one."""
    lines = {line.strip() for line in said.splitlines()}
    found = {need for need in needs if need in lines}
    configs = {line.split("=")[0].removeprefix("CONFIG_") for line in lines if "=" in line}
    known = "config known" in lines
    online = 1
    for line in lines:
        if line.startswith("online "):
            spans = [_CPUS.fullmatch(one) for one in line.removeprefix("online ").split(",")]
            online = sum(int(m[2] or m[1]) - int(m[1]) + 1 for m in spans if m)
    for need in needs:
        kind, _, name = need.partition(" ")
        has_config = kind == "config" and (name in configs or not known)
        if has_config or (kind == "cpus" and online >= int(name)):
            found.add(need)
    return frozenset(found)


class Features:
    """What the running kernel and its user space have of all that the catalogue needs."""

    def __init__(self, shell: BoardShell, deadline_s: float) -> None:
        needs = {need for scenario in CATALOGUE for need in scenario.kernel_needs}
        said = shell.run_script(probe_script(needs), deadline_s, what="asking what the kernel has")
        self._there = parse_features(said, needs)
        self._asked = frozenset(needs)

    def missing(self, scenario: Scenario) -> tuple[str, ...]:
        """What the scenario needs of the kernel and is not there."""
        needs = scenario.kernel_needs
        return tuple(need for need in needs if need in self._asked and need not in self._there)


def missing_bench(scenario: Scenario, options: BenchOptions) -> tuple[str, ...]:
    """What the scenario needs of the bench, by its environment, and is not there."""
    hook = options.boot_with
    there = set(options.features)
    there |= {"hook boot_with"} if hook else set()
    there |= {"hook boot_with {ecc}"} if any("{ecc}" in word for word in hook) else set()
    there |= {"hook reset"} if options.reset else set()
    there |= {f"command {name}" for name in options.commands}
    return tuple(need for need in scenario.bench_needs if need not in there)


def prepare(shell: BoardShell, scenario: Scenario, options: BenchOptions) -> None:
    """Set the board up for ``scenario``, before arming; raises BenchError."""
    writes = {f"sysctl {name}": value for name, value in scenario.sysctl.items()}
    writes |= {f"parameter {name}": value for name, value in scenario.parameters.items()}
    lines = [
        f"echo {shlex.quote(value)} > {proc_path(need)} || exit 1" for need, value in writes.items()
    ]
    lines += [f"({options.commands[name]}) || exit 1" for name in scenario.commands]
    lines += [f"({scenario.prepare}) || exit 1"] if scenario.prepare else []
    if lines:
        what = f"preparing scenario {scenario.name}"
        shell.run_script("\n".join(lines), options.deadlines_s.script, what=what, idempotent=False)
