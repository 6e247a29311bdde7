"""Bench faults at random moments of a run: which there are, and what a run may say of each.

A run that is disturbed ends in ERROR naming the cause, or in PASS; never in FAIL, which would
blame the kernel.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from farm.errors import FarmError
from farm.virtual.control import ask
from farm.virtual.layout import BoardDir
from tests.e2e.conftest import Board, Outcome

DEADLINES_S = {"boot": 20, "panic": 8, "reset": 20, "script": 10, "collect": 40}
# An undisturbed run takes about so long; a fault comes anywhere in it.
RUN_S = 6.0

# What the account of a run says when this part of the bench was the cause.
_LINE = r"serial|console|silent|not one byte|no panic after the trigger|answer|shell"
_USB = r"usb|sahara|edl|crash mode|firehose|fastboot|90[0-9a-f]{2}|device"
_POWER = r"power|cold|relay|came back|prompt|vanished|reset|boot|shell|serial|no word"
_LOST = r"serial|power|board|lost|refused|usb|connection"


KINDS = (
    *("silence", "silence-for", "hang", "stuck-relay", "kill", "power-off", "glitch"),
    *("stopped", "intruder", "disk", "replug", "usb", "usb", "usb", "usb", "usb", "words"),
)


@dataclass(frozen=True)
class Planted:
    """One fault as it was planted: its name, how, and what may name it as the cause."""

    name: str
    act: Callable[[Board], None]
    cause: str
    channel: str = "pstorefs"
    at_start: bool = False
    after: str = "boot"
    file_limit_bytes: int | None = None


def _fault(*words: str) -> Callable[[Board], None]:
    return lambda board: board.fault(*words)


def _silence_for(seconds: float) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        # The command takes longer than what is to be hit.
        daemon = BoardDir(Path(board.environment["PANIC_FARM_STATE"]) / board.name)
        ask(daemon, "silence", on=True)
        time.sleep(seconds)
        ask(daemon, "silence", on=False)

    return act


def _power(board: Board, on: bool) -> None:
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    host = config["targets"]["main"]["resources"]["NetworkPowerPort"]["host"]
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(host.format(index="0", value=int(on)), timeout=5),
    ):
        pass


def _glitch(seconds: float) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        _power(board, False)
        time.sleep(seconds)
        _power(board, True)

    return act


def _stopped_for(seconds: float) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        pid = board.status()[1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    return act


def _intruder(board: Board) -> None:
    """Somebody else opens the serial port, and types."""
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    port = config["targets"]["main"]["resources"]["NetworkSerialPort"]["port"]
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 5) as line:
        line.sendall(b"\r\x03ls\r")
        time.sleep(1)


def _usb(rng: random.Random) -> tuple[str, ...]:
    return rng.choice(
        (
            ("missing-zlp", "on"),
            ("extra-zlp", "on"),
            ("leading-zlp", "on"),
            ("short-reads", str(rng.choice((1, 7, 63, 512, 4093)) + 60)),
            ("refuse-read-at", str(rng.randint(1, 12))),
            ("refuse-after", str(rng.randint(1, 100_000))),
            ("swallow-hello", "on"),
            ("narrow", "on"),
            ("packet-bytes", rng.choice(("64", "1024"))),
            ("unplug-at", str(rng.randint(0, 2_200_000))),
            ("rate-mb-s", str(rng.choice((0.3, 2.0)))),
            ("hostile-names", "on"),
            ("log-after", "on"),
            ("nak-at", str(rng.randint(1, 6))),
        )
    )


def plant(rng: random.Random) -> Planted:
    """Choose a fault, of the one kind that the environment asks for if it does."""
    kind = rng.choice(KINDS)
    kind = os.environ.get("PANIC_FARM_FAULT_KIND") or kind
    seconds = rng.uniform(0.1, 4.0)
    match kind:
        case "silence":
            return Planted(kind, _fault("silence", "on"), _LINE)
        case "silence-for":
            return Planted(f"silence for {seconds:.1f} s", _silence_for(seconds), _LINE)
        case "words":
            # Somewhere between the trigger and the reset a second after the panic.
            seconds = rng.uniform(0.02, 1.2)
            return Planted(
                f"silence for {seconds:.2f} s in the panic",
                _silence_for(seconds),
                _LINE,
                after=": panic: ",
            )
        case "hang":
            return Planted(kind, _fault("hang"), r"hung|did not happen|silent|prompt|no kernel")
        case "stuck-relay":
            return Planted(kind, _fault("stuck-relay"), _POWER)
        case "kill":
            return Planted(kind, lambda board: board.kill(), _LOST)
        case "power-off":
            return Planted(kind, lambda board: _power(board, False), _POWER + "|" + _LINE)
        case "glitch":
            return Planted(f"power off for {seconds:.1f} s", _glitch(seconds), _POWER + "|" + _LINE)
        case "stopped":
            return Planted(f"board stands for {seconds:.1f} s", _stopped_for(seconds), _LOST)
        case "intruder":
            return Planted(kind, _intruder, _LINE)
        case "disk":
            limit = rng.choice((4096, 30_000, 60_000, 100_000, 1 << 20))
            return Planted(
                f"files of {limit} bytes at most",
                lambda board: None,
                r"disk|write|written|File too large",
                channel=rng.choice(("pstorefs", "pstorefs,sahara")),
                file_limit_bytes=limit,
            )
        case "replug":
            at = rng.randint(0, 2_200_000)

            def act(board: Board) -> None:
                board.fault("usb", "replug", "on")
                board.fault("usb", "unplug-at", str(at))

            return Planted(
                f"usb unplug at {at}, replug", act, _USB, channel="pstorefs,sahara", at_start=True
            )
    words = _usb(rng)
    channel = rng.choice(("pstorefs,sahara", "sahara", "pstorefs,firehose", "pstorefs,fastboot"))
    return Planted(
        f"usb {' '.join(words)} ({channel})",
        _fault("usb", *words),
        _USB,
        channel=channel,
        at_start=rng.random() < 0.7,
    )


@dataclass
class Result:
    """How one disturbed run ended; ``wrong`` says what is wrong with that, if anything."""

    seed: int
    fault: str
    at_s: float
    verdict: str
    why: str
    wrong: str = ""
    retries: list[str] = field(default_factory=list)


def with_deadlines(board: Board) -> None:
    """Shorten the deadlines of the board's environment."""
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    config["targets"]["main"]["options"]["deadlines_s"] = dict(DEADLINES_S)
    board.lg_env.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def disturbed_run(board: Board, seed: int) -> Result:
    """Run once with the fault that ``seed`` says, at the moment that it says."""
    rng = random.Random(seed)
    planted = plant(rng)
    at_s = 0.0 if planted.at_start else rng.uniform(0, RUN_S)
    if planted.after != "boot":
        at_s = rng.uniform(0, 0.4)
    board.up()
    if planted.at_start:
        planted.act(board)
    scenario = rng.choice(("sysrq-c", "break-c", "lkdtm-bug"))
    running = board.start(
        *("--channel", planted.channel, "--scenario", scenario),
        file_limit_bytes=planted.file_limit_bytes,
    )
    disturber = None
    if not planted.at_start:

        def disturb() -> None:
            time.sleep(at_s)
            with contextlib.suppress(AssertionError, ProcessLookupError, KeyError, FarmError):
                planted.act(board)

        running.wait_for(planted.after)
        disturber = threading.Thread(target=disturb, daemon=True)
        disturber.start()
    try:
        outcome = running.wait()
    except AssertionError as error:
        # Without room for its account, the run can but say so.
        said = str(error)
        told = said.startswith("exit code 3,") and re.search(planted.cause, said) is not None
        wrong = "" if told and planted.file_limit_bytes else "no account of the run"
        return Result(seed, planted.name, at_s, "ERROR", said, wrong=wrong)
    finally:
        if disturber is not None:
            disturber.join()
        board.farm("virtual", "down", "--name", board.name)
    return _judged(seed, planted, at_s, outcome)


def _judged(seed: int, planted: Planted, at_s: float, outcome: Outcome) -> Result:
    verdict = outcome.run["verdict"]
    cycle: dict[str, Any] = outcome.cycles[-1] if outcome.cycles else {}
    why = str(cycle.get("result", {}).get("why", outcome.run["ended_early"]))
    result = Result(seed, planted.name, at_s, verdict, why)
    lines = outcome.stderr.splitlines()
    result.retries = [line for line in lines if re.search(r"again|retry|retried", line)]
    if verdict == "FAIL":
        result.wrong = "the kernel is blamed"
    elif verdict == "ERROR" and not re.search(planted.cause, why, re.IGNORECASE):
        result.wrong = f"the cause is not named ({planted.cause})"
    elif verdict == "SKIP":
        result.wrong = "skipped"
    elif verdict == "PASS" and outcome.code != 0 and not outcome.run["ended_early"]:
        result.wrong = f"PASS with exit code {outcome.code}"
    return result
