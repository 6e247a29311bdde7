"""Checks of the bench from its environment file, without a word to the board."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.bench.hooks import ON_HOST, command_line
from farm.bench.options import BenchOptions
from farm.doctor.answers import Answer, ok, unknown, warning, wrong

_CONNECT_S = 3.0
_USB_FEATURES = frozenset({"sahara", "firehose", "fastboot"})


def needs_usb(options: BenchOptions) -> bool:
    """Whether the board's boot modes are wanted."""
    return bool(options.features & _USB_FEATURES)


def arguments(target: Mapping[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    """The arguments of a resource or driver called ``name``, None when there is none."""
    entries = target.get(kind) or {}
    listed = [entries] if isinstance(entries, Mapping) else entries
    for one in listed:
        if isinstance(one, Mapping) and name in one:
            return dict(one[name] or {})
        if isinstance(one, Mapping) and one.get("cls") == name:
            return {key: value for key, value in one.items() if key != "cls"}
    return None


def tools_of(target: Mapping[str, Any], options: BenchOptions) -> tuple[str, ...]:
    """The programs that this host must have for the board."""
    wanted = []
    if "fastboot" in options.features:
        wanted.append("fastboot")
    edl = arguments(target, "drivers", "Edl")
    if "firehose" in options.features and edl is not None and edl.get("tool", "qdl") == "qdl":
        wanted.append("qdl")
    hooks = options.bench
    commands = [words for words in (hooks.status, hooks.start, hooks.stop) if words]
    wanted += [
        "ssh" if words[0].startswith(ON_HOST) else command_line(words)[0]
        for words in commands
        if words[0] != "farm"
    ]
    if any(words[:2] == ("farm", "virtual") for words in commands):
        wanted += ["qemu-system-aarch64", "umockdev-wrapper"]
    if arguments(target, "resources", "RemotePlace") is not None:
        wanted.append("ssh")
    return tuple(dict.fromkeys(wanted))


def check_serial(target: Mapping[str, Any], options: BenchOptions, *, up: bool) -> list[Answer]:
    """Whether the serial port is there and can carry a BREAK."""
    network = arguments(target, "resources", "NetworkSerialPort")
    if network is None:
        local = arguments(target, "resources", "RawSerialPort")
        if local is None or "port" not in local:
            return [unknown("serial", "labgrid finds the serial port by itself")]
        if Path(str(local["port"])).exists():
            return [ok("serial", f"{local['port']} is there, and a local port carries BREAK")]
        return [
            wrong(
                "serial",
                f"{local['port']} is not there",
                "Check the adapter and its cable, and `port` of RawSerialPort.",
            )
        ]
    answers = []
    protocol = str(network.get("protocol", "rfc2217"))
    if protocol == "raw":
        answers.append(
            (wrong if "break" in options.features else warning)(
                "break",
                "a raw socket swallows BREAK: a board with a dead shell cannot be panicked",
                "Serve the port by RFC 2217 (ser2net: `telnet(rfc2217)`) and set "
                "`protocol: rfc2217`.",
            )
        )
    else:
        answers.append(ok("break", f"{protocol} carries BREAK"))
    place = (str(network.get("host", "")), int(network.get("port") or 0))
    if not up:
        answers.append(unknown("serial", f"{place[0]}:{place[1]}: the bench is down"))
        return answers
    try:
        with socket.create_connection(place, _CONNECT_S):
            pass
    except OSError as error:
        answers.append(
            wrong(
                "serial",
                f"{place[0]}:{place[1]} cannot be reached: {error.strerror or error}",
                "Start the serial server, or correct `host` and `port`.",
            )
        )
    else:
        answers.append(ok("serial", f"{place[0]}:{place[1]} answers"))
    return answers


def check_files(target: Mapping[str, Any], lg_env: Path) -> list[Answer]:
    """Whether what the environment names is there."""
    edl = arguments(target, "drivers", "Edl")
    if edl is None or not edl.get("programmer"):
        return []
    programmer = lg_env.resolve().parent / str(edl["programmer"])
    if programmer.is_file():
        return [ok("programmer", f"{programmer} is there")]
    return [
        wrong(
            "programmer",
            f"{programmer} is not there: EDL cannot flash or peek",
            "Get the Firehose programmer that is signed for this chip.",
        )
    ]


def check_fastboot_serial(target: Mapping[str, Any]) -> list[Answer]:
    """Whether fastboot and the USB resource speak of one board."""
    fastboot = arguments(target, "drivers", "Fastboot") or {}
    usb = arguments(target, "resources", "BoardUsb") or {}
    asked, own = str(fastboot.get("serial", "")), str(usb.get("serial", ""))
    if not asked or not own or asked.lower() == own.lower():
        return []
    return [
        warning(
            "fastboot-id",
            f"Fastboot asks for {asked}, BoardUsb is {own}",
            "Take `serial` off Fastboot, unless the bootloader shows another one than the chip.",
        )
    ]


def assumptions(options: BenchOptions) -> list[Answer]:
    """What the environment takes for granted and only the board can settle."""
    remedy = "Take each off `assumptions` in the environment file once this board has shown it."
    *others, last = options.assumptions or ("",)
    answers = [unknown("assumption", one) for one in others]
    return [*answers, unknown("assumption", last, remedy)] if last else answers


def check_farm() -> Answer:
    """Whether the hooks' `farm` is this one."""
    found = command_line(["farm"])[0]
    if shutil.which(found):
        return ok("farm", found)
    return wrong("farm", f"{found} cannot be run", "Install the farm: make setup.")
