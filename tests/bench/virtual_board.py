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
from farm.virtual.usb_bus import usb_serial

DEVICES = Path(__file__).resolve().parents[2] / "devices"
NONCE = 0x1122_3344_5566_7788


def environment(root: Path, name: str, *options: str) -> Path:
    """Write devices/virtual.yaml below ``root`` with another name and free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    serial, power = (str(one.getsockname()[1]) for one in sockets)
    for one in sockets:
        one.close()
    text = (DEVICES / "virtual.yaml").read_text().replace("20817", serial).replace("20818", power)
    up = ", ".join(["--serial-port", repr(serial), "--power-port", repr(power), *options])
    text = text.replace("board: virtual\n", f"board: {name}\n")
    text = text.replace("virtual, up, ", f"virtual, up, {up}, ")
    text = text.replace("serial: E1A339F9", f"serial: '{usb_serial(name)}'")
    text = text.replace("virtual-programmer.elf", str(DEVICES / "virtual-programmer.elf"))
    path = root / f"{name}.yaml"
    path.write_text(text)
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
