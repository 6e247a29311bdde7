"""Checks of this host: programs, USB rights, who else talks to modems, room on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from farm.doctor.answers import Answer, ok, unknown, warning, wrong

_RULE_FOLDERS = ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")
_VENDOR = "05c6"
_IGNORED = "ID_MM_DEVICE_IGNORE"
_RULE = 'SUBSYSTEM=="usb", ATTR{idVendor}=="05c6", MODE="0666", ENV{ID_MM_DEVICE_IGNORE}="1"'
_PACKAGES = {
    "fastboot": "fastboot",
    "qdl": "qdl",
    "qemu-system-aarch64": "qemu-system-arm",
    "umockdev-wrapper": "umockdev",
    "ssh": "openssh-client",
}


@dataclass(frozen=True)
class Host:
    """Where to look; the defaults are this host."""

    root: Path = Path("/")
    path: str | None = None
    uid: int = field(default_factory=os.getuid)

    def programs(self) -> Iterator[str]:
        """The names of all processes."""
        for comm in sorted((self.root / "proc").glob("[0-9]*/comm")):
            try:
                yield comm.read_text(errors="replace").strip()
            except OSError:
                continue

    def modules(self) -> set[str]:
        """The kernel modules that are loaded."""
        try:
            text = (self.root / "proc/modules").read_text()
        except OSError:
            return set()
        return {line.split(" ", 1)[0] for line in text.splitlines()}

    def rules(self) -> Iterator[str]:
        """Every line of udev's rules that is no comment."""
        for folder in _RULE_FOLDERS:
            for path in sorted((self.root / folder).glob("*.rules")):
                try:
                    lines = path.read_text(errors="replace").splitlines()
                except OSError:
                    continue
                yield from (one for one in lines if not one.lstrip().startswith("#"))


def check_tools(host: Host, tools: tuple[str, ...]) -> Answer:
    """Whether every program is in PATH."""
    missing = [one for one in tools if shutil.which(one, path=host.path) is None]
    if not missing:
        return ok("tools", f"{', '.join(tools) or 'none'}: all there")
    packages = " ".join(_PACKAGES.get(one, one) for one in missing)
    return wrong("tools", f"not in PATH: {', '.join(missing)}", f"apt install {packages}")


def check_udev(host: Host, *, emulated: bool) -> Answer:
    """Whether this user may open a Qualcomm boot mode."""
    if emulated:
        return ok("udev", "the board's USB is emulated, no rule is needed")
    if host.uid == 0:
        return ok("udev", "root needs no rule")
    if any(_VENDOR in line.lower() for line in host.rules()):
        return ok("udev", f"there is a rule for USB vendor {_VENDOR}")
    return wrong(
        "udev",
        f"no rule lets user {host.uid} open USB vendor {_VENDOR}: EDL and crash mode are out of "
        "reach",
        f"Put this into /etc/udev/rules.d/51-panic-farm.rules, then `udevadm control --reload`: "
        f"{_RULE}",
    )


def check_modem_manager(host: Host, *, emulated: bool) -> Answer:
    """Whether a program or driver of this host reads the first packet of a boot mode away."""
    found = []
    if "ModemManager" in host.programs():
        ignored = any(_IGNORED in one and _VENDOR in one.lower() for one in host.rules())
        found += [] if ignored else ["ModemManager runs"]
    if "qcserial" in host.modules():
        found.append("the module qcserial is loaded")
    if not found:
        return ok("modem", "neither ModemManager nor qcserial is in the way")
    what = f"{' and '.join(found)}: a boot mode's first words may be read away"
    remedy = (
        "systemctl mask --now ModemManager, or a udev rule with "
        'ENV{ID_MM_DEVICE_IGNORE}="1" for 05c6; `blacklist qcserial` in /etc/modprobe.d'
    )
    return (warning if emulated else wrong)("modem", what, remedy)


def check_disk(folder: Path, least_mib: int) -> Answer:
    """Whether there is room where the runs' folders are made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free_mib = shutil.disk_usage(place).free >> 20
    except OSError as error:
        return unknown("disk", f"{place}: {error.strerror}")
    what = f"{free_mib} MiB free for {folder}"
    if free_mib >= least_mib:
        return ok("disk", what)
    return wrong(
        "disk",
        f"{what}, {least_mib} MiB are wanted",
        "Make room, or choose another folder with --out.",
    )
