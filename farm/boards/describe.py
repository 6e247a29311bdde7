"""A board's description: a labgrid environment and an overlay, from its tree and a few answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from farm.boards.area import one_line
from farm.boards.chips import ChipFacts
from farm.boards.place import LK2ND, Memory, Place
from farm.boards.tree import BoardTree
from farm.build.bootimage import BootLayout

Bootloader = Literal["lk2nd", "abl", "u-boot"]
PowerKind = Literal["qcomlt", "tac", "network"]

_CONTROL = {
    "qcomlt": "/dev/serial/by-id/usb-debug-board",
    "tac": "http://localhost:5000",
    "network": "http://localhost:8080/power/{index}/{value}",
}
_CMDLINE = "console=ttyMSM0,115200n8 earlycon loglevel=7 panic=1 oops=panic sysrq_always_enabled"
# Those of the test devices that fit beside the drivers in lk2nd's small region.
_SMALL_SAMPLES = "panicdump_sample.devices=b16,b256,b4096+r64,c1000,r256,c8192"
# Drivers of the series that every Qualcomm board has, and what a record of each may cost.
_BUDGETS = {
    "panicdump-sample.*": 131072,
    "cpu": 65536,
    "clk": 131072,
    "regulator": 65536,
}
_GENI = "qcom_geni_serial"


@dataclass(frozen=True)
class Bench:
    """What of a board's bench is asked: how the board is reached.

    ``serial`` is a device or HOST:PORT of an RFC 2217 server; ``control`` what the power switch is
    reached by, as its kind wants it; ``usb_path`` stands in where ``usb_serial`` is not known.
    """

    serial: str = "localhost:4001"
    power: PowerKind = "network"
    control: str = ""
    control_serial: str = "0"
    usb_serial: str = ""
    usb_path: str = "1-1"


def environment(
    tree: BoardTree,
    memory: Memory,
    place: Place,
    facts: ChipFacts | None,
    bench: Bench,
    bootloader: Bootloader,
) -> str:
    """The text of the board's labgrid environment."""
    boot = facts.boot_image if facts is not None else BootLayout()
    storage = facts.storage if facts is not None else "ufs"
    slots = facts.slots if facts is not None else True
    geni = any("geni" in one for one in tree.console_compatible)
    small = place.layout.panicdump_bytes <= LK2ND.panicdump_bytes
    required = ["panicdump-sample", "cpu", "clk", "regulator"]
    budgets = dict(_BUDGETS)
    if geni:
        required.append(_GENI)
        budgets[_GENI] = 8192
    if "qcom,sdm845" in tree.compatible:
        required.append("gcc-sdm845")
        budgets["gcc-sdm845"] = 65536
    reads = {"lk2nd": "lk2nd", "u-boot": "u-boot", "abl": "none"}[bootloader]
    features = ["sysrq", "break", "lkdtm", "sahara"]
    features += ["fastboot"] if reads != "none" else []
    features += ["firehose"] if storage != "nand" else []
    host, _, port = bench.serial.rpartition(":")
    local = bench.serial.startswith("/")
    programmer = f"programmers/{tree.stem}.elf"
    values = {
        "tree": tree,
        "model": one_line(tree.model),
        # The last compatible of a root is its chip's.
        "soc": "".join(one for one in tree.compatible[-1:] if "," in one).rpartition(",")[2],
        "features": features,
        "boot_partition": "boot_a" if slots else "boot",
        "boot": boot,
        "cmdline": f"{_CMDLINE} {_SMALL_SAMPLES}" if small else _CMDLINE,
        "required": required,
        "budgets": budgets,
        # The rest is for headers, and for error correction.
        "total_budget": place.layout.panicdump_bytes * 3 // 4,
        "assumptions": _assumptions(
            tree,
            memory,
            place,
            bench,
            bootloader,
            programmer,
            slots=slots,
            boot=boot,
            made_so=facts is not None and bool(facts.boot_image_source),
        ),
        "serial_device": bench.serial if local else "",
        "serial_host": "" if local else host,
        "serial_port": "" if local else int(port),
        "power": bench.power,
        "power_model": "simplerest",
        "power_index": bench.control_serial,
        "control": bench.control or _CONTROL[bench.power],
        "control_serial": bench.control_serial,
        "usb_serial": bench.usb_serial,
        "usb_path": bench.usb_path,
        "programmer": programmer,
        "storage": storage,
        "reader": reads,
        "reboot_modes": [one for one in ("bootloader", "edl") if one in tree.reboot_modes],
    }
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    # JSON's strings are YAML's, whatever a tree or a user has put into them.
    templates.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=True)
    return templates.get_template("environment.yaml.j2").render(values)


def _assumptions(
    tree: BoardTree,
    memory: Memory,
    place: Place,
    bench: Bench,
    bootloader: str,
    programmer: str,
    *,
    slots: bool,
    boot: BootLayout,
    made_so: bool,
) -> list[str]:
    """What only the board can settle, in the order in which a bring-up meets it."""
    layout = (
        f"the bootloader takes header version {boot.header_version} with the DTB {boot.dtb}, "
        f"base {boot.base:#x}; "
    )
    # Settled where somebody makes them so for this very board.
    layout = "" if made_so else layout
    span = f"{place.area.paddr:#x} to {place.area.end_paddr:#x}"
    found = [
        f"RAM: {span} is memory on this board ({memory.ram_source})",
        f"firmware: nothing writes to {span} from a panic to the next kernel ({place.why})",
        "DRAM: a warm reset keeps it",
        f"console: ttyMSM0 is {tree.console or 'the debug UART'}, and BREAK reaches the kernel",
        f"boot image: {layout}partition {'boot_a' if slots else 'boot'} is unlocked",
    ]
    if "bootloader" in tree.reboot_modes:
        found.append("fastboot: `reboot bootloader` leads there")
    else:
        found.append(
            "fastboot: the tree has no reboot mode, so `reboot bootloader` may just boot; then "
            "only a key leads there"
        )
    if bootloader == "lk2nd":
        found.append(f"lk2nd: `oem ramoops raw` stages {span}; do not boot with lk2nd.pass-ramoops")
    # lk2nd/fastboot/misc.c registers it; of ABLs some have it.
    if "edl" not in tree.reboot_modes and bootloader != "lk2nd":
        found.append("EDL: the bootloader knows `oem reboot-edl`")
    found += [
        "crash mode: with download_mode=full a panic ends in 05c6:900e; a fused board may refuse",
        f"EDL: {programmer} is a programmer signed for this board, and can peek without writing to "
        "the region",
        "USB: serial number or path is the same in EDL, crash mode and fastboot",
    ]
    off = {
        "qcomlt": "the debug board's p and u cut all power, USB's too; P starts the board",
        "tac": "powerOff cuts all power, USB's too",
        "network": "the switch cuts all power and the board starts when it comes back; USB must "
        "not feed it",
    }
    found.append(f"power: {off[bench.power]}")
    return found
