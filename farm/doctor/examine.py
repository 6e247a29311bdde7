"""All checks of one bench, in the order of the data flow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.bench import hooks
from farm.bench.environment import ROLE, Bench, open_bench, read_options, read_target
from farm.bench.options import BenchOptions
from farm.bench.whereabouts import Place, Whereabouts
from farm.build import cache
from farm.doctor import bench as bench_checks
from farm.doctor.answers import Answer, ok, unknown, warning, wrong
from farm.doctor.board import Wanted, board_answers, survey
from farm.doctor.host import Host, check_disk, check_modem_manager, check_tools, check_udev
from farm.errors import BenchError, FarmError

_BOOT = "`farm doctor --boot` brings it to its shell."


@dataclass(frozen=True)
class Question:
    """What to examine, and how far to go.

    ``boot``: bring the board to its shell for it, and back to where it was. ``offline``: ask
    neither bench nor board.
    """

    lg_env: Path
    channels: tuple[str, ...] = ()
    out: Path = Path("reports")
    least_free_mib: int = 1024
    build_id: str | None = None
    boot: bool = False
    offline: bool = False
    host: Host = field(default_factory=Host)


def examine(question: Question) -> Iterator[Answer]:
    """Yield each answer as it is known; raises UsageError for a faulty environment file."""
    options = read_options(question.lg_env)
    target = read_target(question.lg_env)
    yield ok("environment", f"{question.lg_env}: target {ROLE}, board {options.board}")
    usb = bench_checks.arguments(target, "drivers", "UsbBoot")
    emulated = bool(usb and usb.get("environment"))
    host = question.host
    yield check_tools(host, bench_checks.tools_of(target, options))
    if bench_checks.needs_usb(options):
        yield check_udev(host, emulated=emulated)
        yield check_modem_manager(host, emulated=emulated)
    yield check_disk(question.out, question.least_free_mib)
    yield from bench_checks.check_files(target, question.lg_env)
    yield from bench_checks.check_fastboot_serial(target)
    yield from bench_checks.assumptions(options)
    up, answer = _bench_state(options)
    if question.offline:
        up, answer = False, unknown("bench", "neither bench nor board was asked (--offline)")
    yield answer
    yield from bench_checks.check_serial(target, options, up=up)
    if up or (question.boot and not question.offline):
        yield from _opened(question, options, target)
    else:
        yield unknown("board", "the board was not asked", _BOOT)


def _bench_state(options: BenchOptions) -> tuple[bool, Answer]:
    """Whether the bench is up, without starting it."""
    hook = options.bench
    if not hook.status:
        return True, ok("bench", "it needs no starting")
    code, said = hooks.state(hook.status)
    if code == hooks.UP:
        return True, ok("bench", "it is up")
    if code == hooks.DOWN and hook.start:
        return False, ok("bench", "it is down; a run starts it")
    state = "down, and there is no command to start it" if code == hooks.DOWN else "lost"
    return False, wrong("bench", f"it is {state}: {said}", "Bring it down and up again.")


def _opened(question: Question, options: BenchOptions, target: dict[str, Any]) -> Iterator[Answer]:
    try:
        with open_bench(question.lg_env) as bench:
            yield from _asked(question, options, target, bench)
    except BenchError as error:
        yield wrong(error.part, error.message, error.next_step or "See the environment file.")


def _asked(
    question: Question, options: BenchOptions, target: dict[str, Any], bench: Bench
) -> Iterator[Answer]:
    where = bench.strategy.where()
    yield from _power(where)
    yield from _usb(bench, where)
    booted = False
    if where.place is not Place.SHELL:
        if not question.boot:
            yield unknown("board", f"it is not at its shell: {where}", _BOOT)
            return
        bench.ensure_shell()
        booted = True
    try:
        download = bench_checks.arguments(target, "drivers", "DownloadMode")
        driver = bench.strategy.download
        command = "" if download is None or driver is None else str(driver.get)
        wanted = Wanted(
            options=options,
            build_id=question.build_id or _built(options.build),
            crash_mode=bool({"sahara", "ramdump"} & set(question.channels)),
            download=command,
        )
        yield from board_answers(survey(bench.shell, command), wanted)
    finally:
        if booted and where.place is Place.OFF:
            error: FarmError | None = bench.safe_state()
            if error is not None:
                yield wrong("power", error.message, error.next_step)


def _power(where: Whereabouts) -> Iterator[Answer]:
    said = next((one for one in where.evidence if one.startswith("power")), "power unknown")
    if said.startswith("power unknown:"):
        yield wrong(
            "power",
            said.removeprefix("power unknown: "),
            "Check the power switch, its server and its address in the environment file.",
        )
    elif said == "power unknown":
        yield unknown("power", "this kind of switch cannot be asked")
    else:
        yield ok("power", f"the switch says: {said}")
    if where.place is Place.CRASH:
        yield warning(
            "crash",
            "the board is in crash mode: it holds somebody's crash",
            "`farm run` saves its memory under rescued/ before it goes on.",
        )
    elif where.place in (Place.HUNG, Place.BOOT_LOOP):
        yield wrong("board", str(where), "Power-cycle it; look at its console.")


def _usb(bench: Bench, where: Whereabouts) -> Iterator[Answer]:
    """Whether the board that the cable shows is this one."""
    usb = bench.strategy.usb
    if usb is None:
        return
    try:
        bench.target.activate(usb)
        seen = usb.on_the_bus()
        own = usb.find()
    except BenchError as error:
        yield wrong("usb", error.message, error.next_step)
        return
    if own is not None:
        yield ok("fastboot-id", f"{own.serial or own.path} is on the bus, in {own.mode.value}")
        return
    if not seen:
        yield unknown(
            "fastboot-id", "no board shows a boot mode now, so its USB identity is not seen"
        )
        return
    shown = ", ".join(f"{one.serial} in {one.mode.value} at {one.path}" for one in seen)
    what = f"{usb.describe()} is not on the bus, but {shown}"
    remedy = "Correct `serial` or `path` of the USB resource; or that is another board."
    # A board that runs a kernel shows nothing: the others may well be other boards.
    at_rest = where.place in (Place.SHELL, Place.OFF, Place.BOOTING)
    yield (warning if at_rest else wrong)("fastboot-id", what, remedy)


def _built(board: str) -> str | None:
    """The build id of the newest kernel that `farm build` made for ``board``."""
    if not board:
        return None
    record = cache.root() / board / "current" / "build.json"
    try:
        found = json.loads(record.read_text())["build_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
