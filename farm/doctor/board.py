"""Checks of a board at its shell: read, never set."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from farm.bench.manifest import LKDTM, TABLE, parse_identity
from farm.bench.options import BenchOptions
from farm.bench.pstorefs import LIST_SCRIPT, PREFIX, parse_listing
from farm.bench.shell import BoardShell
from farm.doctor.answers import Answer, ok, unknown, warning, wrong
from farm.errors import FormatError
from farm.formats.table import Table, parse_table
from farm.judge.policy import unmatched
from farm.model import ManifestDevice

_DEADLINE_S = 20.0
# Documentation/admin-guide/sysrq.rst: bit 8 enables the crash command.
_SYSRQ_DUMP = 8
# CONFIG_CONSOLE_LOGLEVEL_QUIET: what `quiet` stands for; an oops speaks on level 3 and below.
_QUIET_LOGLEVEL = 4
_MOST_SKEW_S = 300.0

_SCRIPTS = {
    "sysrq": "cat /proc/sys/kernel/sysrq",
    "panic": "cat /proc/sys/kernel/panic",
    "cmdline": "cat /proc/cmdline",
    "console": "cat /sys/class/tty/console/active",
    "date": "date +%s",
    "lkdtm": f"[ -e {LKDTM} ] && echo yes",
    "table": f"cat {TABLE}",
    "ramoops": "cd /sys/module/ramoops/parameters && grep . *size",
    "backend": "cat /sys/module/pstore/parameters/backend",
    "identity": "cat /proc/sys/kernel/osrelease; base64 /sys/kernel/notes",
    "pstore": f"(\n{LIST_SCRIPT}\n)",
}
_MOUNTED = "grep -q debugfs /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug\n"


@dataclass(frozen=True)
class Wanted:
    """What the night is going to ask of the board."""

    options: BenchOptions
    build_id: str | None
    crash_mode: bool
    download: str = ""


def survey(shell: BoardShell, download: str) -> dict[str, str]:
    """Ask the board everything, in one round trip; raises BenchError.

    The shell lowers the console loglevel for its work; the kernel's own, 7, is set at the end.
    """
    scripts = {**_SCRIPTS, "download": download or ":"}
    mark = f"@{secrets.token_hex(8)}"
    parts = [f"echo {mark}{name}\n{{\n{text}\n}} 2>/dev/null" for name, text in scripts.items()]
    script = f"{{ {_MOUNTED.strip()}; }} 2>/dev/null\n" + "\n".join(parts) + "\ndmesg -n 7\n:"
    output = shell.run_script(script, _DEADLINE_S, what="the doctor's questions")
    found = {}
    for piece in (output + "\n").split(mark)[1:]:
        name, _, text = piece.partition("\n")
        found[name] = text.strip()
    found["asked"] = str(time.time())
    return found


def _number(text: str) -> int | None:
    first = text.split()[0] if text.split() else ""
    return int(first) if re.fullmatch(r"-?[0-9]{1,18}", first) else None


def _sysrq(said: Mapping[str, str], wanted: Wanted) -> Answer:
    mask = _number(said["sysrq"])
    if mask is None:
        return wrong("sysrq", "the kernel has no sysrq", "Set CONFIG_MAGIC_SYSRQ.")
    if mask == 1 or mask & _SYSRQ_DUMP:
        return ok("sysrq", f"the mask is {mask}")
    return wrong(
        "sysrq",
        f"the mask is {mask}: BREAK and c do not panic a board that hangs before it is armed",
        "`sysrq_always_enabled` on the command line, or kernel.sysrq=1 in sysctl.d.",
    )


def _panic(said: Mapping[str, str], wanted: Wanted) -> Answer:
    seconds = _number(said["panic"])
    if seconds:
        return ok("panic", f"panic={seconds}")
    return wrong(
        "panic",
        "panic=0: a board that panics before it is armed never resets",
        "`panic=1` on the command line, or kernel.panic=1 in sysctl.d.",
    )


def _loglevel(said: Mapping[str, str], wanted: Wanted) -> Answer:
    # What printk says now is of no use: the farm's own shell lowers it while it works.
    words = said["cmdline"].split()
    levels = [_number(word.removeprefix("loglevel=")) for word in words if "loglevel=" in word]
    level = levels[-1] if levels else (_QUIET_LOGLEVEL if "quiet" in words else None)
    if level is None or level > _QUIET_LOGLEVEL:
        return ok("loglevel", "the kernel's, 7" if level is None else f"loglevel={level}")
    return warning(
        "loglevel",
        f"the console loglevel is {level} from the boot on: what an early panic says before it "
        "raises the level stays unseen",
        "`loglevel=7` on the command line; take `quiet` off it.",
    )


def _console(said: Mapping[str, str], wanted: Wanted) -> Answer:
    active = [name for name in said["console"].split() if not re.fullmatch(r"tty[0-9]*", name)]
    if active:
        return ok("console", f"the kernel's console is on {', '.join(active)}")
    return wrong(
        "console",
        "no serial port is the kernel's console: a panic says nothing there, BREAK is not heard",
        "`console=ttyMSM0,115200n8` (or the board's port) on the command line.",
    )


def _clock(said: Mapping[str, str], wanted: Wanted) -> Answer:
    board = _number(said["date"])
    if board is None:
        return unknown("clock", "the board does not say its time")
    skew = board - float(said["asked"])
    what = f"the board's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) <= _MOST_SKEW_S:
        return ok("clock", what)
    return warning(
        "clock",
        f"{what}: times in its records and logs do not match the farm's",
        "Set the RTC, or run an NTP client on the board and on this host.",
    )


def _lkdtm(said: Mapping[str, str], wanted: Wanted) -> Answer:
    if "lkdtm" not in wanted.options.features:
        return ok("lkdtm", "not among the board's features")
    if said["lkdtm"]:
        return ok("lkdtm", f"{LKDTM} is there")
    return wrong(
        "lkdtm",
        f"the environment lists the feature lkdtm, but there is no {LKDTM}",
        "Set CONFIG_LKDTM, or take `lkdtm` off the features.",
    )


def _build_id(said: Mapping[str, str], wanted: Wanted) -> Answer:
    release, running = parse_identity(said["identity"])
    if wanted.build_id is None:
        return unknown(
            "build-id",
            f"{release} runs, build id {running}; nothing is known of what should",
            "Give --build-id, or set `build` in the options and run `farm build`.",
        )
    if running == wanted.build_id:
        return ok("build-id", f"{release}, {running}")
    return wrong(
        "build-id",
        f"{release} runs with build id {running}, wanted is {wanted.build_id}",
        "Flash it: `farm run --flash fastboot|edl`; look at the active slot.",
    )


def _table(said: Mapping[str, str]) -> Table | Answer:
    if not said["table"]:
        return wrong(
            "panicdump",
            f"the kernel has no panicdump: there is no {TABLE}",
            "Boot a kernel with the series, CONFIG_PANICDUMP and CONFIG_DEBUG_FS.",
        )
    try:
        return parse_table(said["table"] + "\n")
    except FormatError as error:
        return wrong("panicdump", f"{TABLE}: {error.message}", "Farm and kernel do not match.")


def _panicdump(table: Table, wanted: Wanted) -> list[Answer]:
    answers = []
    if not table.enabled:
        answers.append(
            wrong("panicdump", "panicdump is disabled", "`panicdump.enabled=1`, the default.")
        )
    elif not table.dumpers:
        answers.append(
            wrong(
                "panicdump",
                "nothing writes the records: panicdump has no dumper",
                "Give ramoops a `panicdump-size` in the device tree; look at dmesg for pstore.",
            )
        )
    else:
        what = f"{len(table.devices)} devices, written by {', '.join(table.dumpers)}"
        answers.append(ok("panicdump", what))
    need, room = table.needed_bytes, table.capacity_bytes
    if need > room:
        answers.append(
            wrong(
                "capacity",
                f"{need} bytes are registered, there is room for {room}",
                "Enlarge ramoops' `panicdump-size` (a power of two), or register less.",
            )
        )
    else:
        answers.append(ok("capacity", f"{need} of {room} bytes are registered"))
    devices = [
        ManifestDevice(
            id=one.id,
            name=one.name,
            driver=one.driver,
            priority=one.priority,
            needed_bytes=one.needed_bytes,
            regions=(),
        )
        for one in table.devices
    ]
    if missing := unmatched(wanted.options.policy, devices):
        answers.append(
            wrong(
                "required",
                f"required, but not registered: {', '.join(missing)}",
                "Load the driver, or take it off policy.required.",
            )
        )
    return answers


def _ramoops(said: Mapping[str, str], wanted: Wanted) -> Answer:
    sizes = {}
    for line in said["ramoops"].splitlines():
        name, _, value = line.partition(":")
        sizes[name] = _number(value) or 0
    if not sizes or not sizes.get("mem_size"):
        return wrong(
            "ramoops",
            "the kernel has no ramoops region",
            'Reserve memory for it: compatible = "ramoops" under /reserved-memory.',
        )
    if said["backend"] != "ramoops":
        return wrong(
            "ramoops",
            f"pstore's backend is {said['backend'] or 'none'}",
            "`pstore.backend=ramoops`; another backend came first.",
        )
    if not sizes.get("panicdump_size"):
        return wrong(
            "ramoops",
            "ramoops has no panicdump zone",
            "Give it `panicdump-size` in the device tree, or ramoops.panicdump_size=.",
        )
    return ok("ramoops", f"{sizes['panicdump_size']} of {sizes['mem_size']} bytes for panicdump")


def _stale(said: Mapping[str, str], wanted: Wanted) -> Answer:
    old = [one.name for one in parse_listing(said["pstore"]).files if one.name.startswith(PREFIX)]
    if not old:
        return ok("records", "no record of an earlier panic lies in pstore")
    return warning(
        "records",
        f"{len(old)} records of an earlier panic lie in pstore: somebody may want them",
        "`farm run` keeps them under old-records/ and removes them.",
    )


def _download(said: Mapping[str, str], wanted: Wanted) -> Answer | None:
    if not wanted.crash_mode:
        return None
    if not wanted.download:
        return wrong(
            "download",
            "crash mode is wanted, and the environment has no driver DownloadMode",
            "Add DownloadMode to the drivers, or take sahara and ramdump off --channel.",
        )
    text = said["download"].lower()
    if not text:
        return wrong(
            "download",
            f"the board does not say its download mode: `{wanted.download}` prints nothing",
            "CONFIG_QCOM_SCM, or `get`, `on` and `off` of DownloadMode.",
        )
    if text in ("off", "n") or re.fullmatch(r"(0x)?0+", text):
        return warning(
            "download",
            "download mode is off: `farm run` switches it on when it arms, but an earlier panic "
            "reboots instead of stopping in crash mode",
            "`qcom_scm.download_mode=full` on the command line.",
        )
    return ok("download", f"download mode is {text}")


_CHECKS: tuple[Callable[[Mapping[str, str], Wanted], Answer | None], ...] = (
    *(_sysrq, _panic, _loglevel, _console, _clock, _lkdtm, _build_id),
    *(_ramoops, _stale, _download),
)


def board_answers(said: Mapping[str, str], wanted: Wanted) -> list[Answer]:
    """Judge what the board has said."""
    answers = [answer for check in _CHECKS if (answer := check(said, wanted)) is not None]
    table = _table(said)
    if isinstance(table, Answer):
        return [*answers, table]
    return [*answers, *_panicdump(table, wanted)]
