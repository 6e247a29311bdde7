"""A virtual board of a test's own, and one panic of it, without the farm's run around it."""

from __future__ import annotations

import socket
from pathlib import Path

from farm.bench.environment import Bench
from farm.bench.inject import inject, watch_panic, watch_reset
from farm.bench.manifest import arm
from farm.bench.pstorefs import unlink_records
from farm.model import Manifest, PanicAccount
from farm.scenarios import scenario_named
from farm.virtual.describe import environment_text

DEVICES = Path(__file__).resolve().parents[2] / "devices"
NONCE = 0x1122_3344_5566_7788


def environment(root: Path, name: str, *options: str) -> Path:
    """The environment of a virtual board below ``root``, on free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    serial, power = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    path = root / f"{name}.yaml"
    path.write_text(environment_text(name, serial, power, root, options))
    return path


def panicked(bench: Bench, name: str) -> tuple[Manifest, PanicAccount]:
    """Panic the board with ``NONCE`` planted; old records are removed before."""
    scenario = scenario_named(name)
    bench.ensure_shell()
    manifest = arm(bench.shell, "bench", scenario, NONCE)
    unlink_records(bench.shell, [one.name for one in manifest.old_records])
    deadlines = bench.options.deadlines_s
    injection = inject(scenario, bench.console, bench.shell)
    panic = watch_panic(injection, scenario, bench.console, deadlines)
    account, _ = watch_reset(panic, injection, bench.console, bench.shell, deadlines)
    return manifest, account
