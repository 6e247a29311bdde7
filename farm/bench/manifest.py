"""Arming: what the live board says of itself just before the panic, in few round trips."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import struct

from farm.bench.pstorefs import LIST_SCRIPT, parse_listing
from farm.bench.shell import BoardShell
from farm.errors import BenchError, FormatError, UsageError
from farm.formats.table import Table, parse_table
from farm.model import (
    Finding,
    FindingKind,
    Manifest,
    ManifestDevice,
    ManifestRegion,
    Ramoops,
    RegionKind,
    Subject,
    Verdict,
)
from farm.scenarios import Scenario, Trigger

TABLE = "/sys/kernel/debug/panicdump/table"
NONCE = "/sys/kernel/debug/panicdump-sample/nonce"
LKDTM = "/sys/kernel/debug/provoke-crash/DIRECT"

_DEADLINE_S = 20.0
_NT_GNU_BUILD_ID = 3
_RAMOOPS_KEYS = (
    "mem_address",
    "mem_size",
    "record_size",
    "console_size",
    "pmsg_size",
    "ftrace_size",
    "panicdump_size",
)

_MOUNT_DEBUGFS = (
    "grep -q ' /sys/kernel/debug ' /proc/mounts || "
    "mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null\n"
)

# ramoops does not write the ECC size of a device tree back into its module parameter.
_SCRIPTS = {
    "identity": "cat /proc/sys/kernel/osrelease; base64 /sys/kernel/notes",
    "table": f"[ -e {TABLE} ] && cat {TABLE}",
    "ramoops": "cd /sys/module/ramoops/parameters && grep . *",
    "dtecc": "od -An -tx1 /proc/device-tree/reserved-memory/ramoops*/ecc-size",
    "backend": "cat /sys/module/pstore/parameters/backend",
    "cmdline": "cat /proc/cmdline",
    "pstore": LIST_SCRIPT,
}
# What user space of the boot before wrote to /dev/pmsg0.
_PMSG_SCRIPT = "tail -c 256 /sys/fs/pstore/pmsg-*"


def _sections(shell: BoardShell, names: tuple[str, ...], what: str) -> dict[str, str]:
    """Run several of ``_SCRIPTS`` in one round trip; return the output of each."""
    mark = f"@{secrets.token_hex(8)}"
    scripts = {**_SCRIPTS, "pmsg": _PMSG_SCRIPT}
    parts = [f"echo {mark}{name}\n(\n{scripts[name]}\n) 2>/dev/null" for name in names]
    script = _MOUNT_DEBUGFS + "\n".join(parts) + f"\necho {mark}end\n:"
    output = shell.run_script(script, _DEADLINE_S, what=what)
    found: dict[str, str] = {}
    for piece in (output + "\n").split(mark)[1:]:
        name, _, text = piece.partition("\n")
        found[name] = text
    if tuple(found) != (*names, "end"):
        raise BenchError(f"{what} came back incomplete", part="shell")
    return found


def parse_identity(text: str) -> tuple[str, str | None]:
    """(kernel release, build id in hex or None) from the section of that name."""
    release, _, notes = text.partition("\n")
    try:
        raw = base64.b64decode("".join(notes.split()))
    except binascii.Error:
        return release.strip(), None
    return release.strip(), build_id_of_notes(raw)


def build_id_of_notes(notes: bytes) -> str | None:
    """The GNU build id, in hex, among little-endian ELF notes padded to 4 bytes; None if none."""
    at = 0
    while at + 12 <= len(notes):
        name_size, desc_size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        desc_at = name_at + (name_size + 3) // 4 * 4
        at = desc_at + (desc_size + 3) // 4 * 4
        if at > len(notes) + 3:
            return None
        name = notes[name_at : name_at + name_size].rstrip(b"\0")
        if name == b"GNU" and kind == _NT_GNU_BUILD_ID and desc_size <= 64:
            return notes[desc_at : desc_at + desc_size].hex()
    return None


def _parse_ramoops(text: str, dt_ecc: str) -> Ramoops | None:
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|[0-9]+)", value):
            values[name] = int(value, 0)
    if "mem_size" not in values:
        return None
    ecc = values.get("ecc", 0)
    octets = dt_ecc.split()
    if len(octets) == 4 and all(re.fullmatch(r"[0-9a-f]{2}", one) for one in octets):
        ecc = int("".join(octets), 16)
    # fs/pstore/ram.c: the module parameter ecc=1 stands for 16 bytes.
    sizes = {f"{key}_bytes": values.get(key, 0) for key in _RAMOOPS_KEYS[1:]}
    return Ramoops(
        mem_address=values.get("mem_address", 0), ecc_size_bytes=16 if ecc == 1 else ecc, **sizes
    )


def _parse_table(text: str, board: str, release: str) -> Table:
    if not text.strip():
        raise UsageError(
            f"the kernel {release} on board {board} has no panicdump: there is no {TABLE}",
            "Boot a kernel with the series of kernel-patches/ (see `farm build`) and with "
            "CONFIG_PANICDUMP and CONFIG_DEBUG_FS.",
        )
    try:
        return parse_table(text)
    except FormatError as error:
        raise FormatError(
            f"{TABLE} on board {board}, line {error.offset}: {error.message}", offset=error.offset
        ) from error


def _devices(table: Table) -> tuple[ManifestDevice, ...]:
    return tuple(
        ManifestDevice(
            id=device.id,
            name=device.name,
            driver=device.driver,
            priority=device.priority,
            needed_bytes=device.needed_bytes,
            regions=tuple(
                ManifestRegion(
                    index=region.index,
                    name=region.name,
                    kind=RegionKind(region.kind),
                    va=region.va,
                    pa=region.pa,
                    size_bytes=region.size_bytes,
                    width_bytes=region.width_bytes,
                    stride_bytes=region.stride_bytes,
                )
                for region in device.regions
            ),
        )
        for device in table.devices
    )


def read_manifest(
    shell: BoardShell, board: str, scenario: str, nonce: int | None = None
) -> Manifest:
    """Read all that judging needs to know of the live board, in one round trip.

    Raises UsageError when the kernel has no panicdump, FormatError (offset: line) for a malformed
    table, BenchError for the rest.
    """
    found = _sections(shell, tuple(_SCRIPTS), "reading the manifest")
    release, build_id = parse_identity(found["identity"])
    table = _parse_table(found["table"], board, release)
    return Manifest(
        board=board,
        scenario=scenario,
        nonce=nonce,
        boot_id=table.boot_id,
        sequence=table.sequence,
        enabled=table.enabled,
        format=table.format,
        on_overflow=table.on_overflow,
        area_bytes=table.area_bytes,
        capacity_bytes=table.capacity_bytes,
        needed_bytes=table.needed_bytes,
        backend=found["backend"].strip(),
        kernel_release=release,
        build_id=build_id,
        cmdline=found["cmdline"].strip(),
        ramoops=_parse_ramoops(found["ramoops"], found["dtecc"]),
        devices=_devices(table),
        old_records=parse_listing(found["pstore"]).old_records(),
    )


def read_identity(shell: BoardShell) -> tuple[str, str | None]:
    """(release, build id in hex or None) of the running kernel, with or without panicdump."""
    return parse_identity(
        _sections(shell, ("identity",), "reading the kernel's identity")["identity"]
    )


def after_panic(shell: BoardShell) -> tuple[str | None, str, str | None, set[str], str]:
    """(boot id, release, build id, names in pstore, text of the pmsg records) of the new boot."""
    names = ("identity", "table", "pstore", "pmsg")
    found = _sections(shell, names, "reading the identity after the panic")
    release, build_id = parse_identity(found["identity"])
    boot = re.search(r"^state boot_id=([0-9a-fA-F-]{36}) ", found["table"], re.MULTILINE)
    listing = parse_listing(found["pstore"])
    files = {one.name for one in listing.files}
    return (boot[1] if boot else None), release, build_id, files, found["pmsg"]


def plant_nonce(shell: BoardShell, nonce: int) -> int | None:
    """Plant a 64-bit ``nonce`` in the sample devices and read it back; None if there are none.

    Raises BenchError(part="board") when the board holds another one afterwards.
    """
    text = f"0x{nonce:016x}"
    result = shell.run_script(
        f"{_MOUNT_DEBUGFS}if [ -e {NONCE} ]; then echo {text} > {NONCE}; cat {NONCE}; fi",
        _DEADLINE_S,
        what="planting the nonce",
    ).strip()
    if not result:
        return None
    try:
        got = int(result, 16)
    except ValueError:
        got = None
    if got != nonce:
        raise BenchError(f"{NONCE} reads {result[:80]!r} after {text} was written", part="board")
    return nonce


def preflight(
    shell: BoardShell, scenario: Scenario, manifest: Manifest | None = None
) -> tuple[Finding, ...]:
    """See to it that the panic can happen and that the board comes back from it.

    Enables sysrq, and panic= and panic_on_oops where they are off; mounts pstore. Raises
    UsageError when the kernel lacks what the scenario needs. Returns what is worth knowing, e.g.
    records that will not all fit.
    """
    output = shell.run_script(
        f"{_MOUNT_DEBUGFS}cd /proc/sys/kernel\n"
        "[ -e sysrq ] && echo 1 > sysrq && echo sysrq $(cat sysrq)\n"
        '[ "$(cat panic)" = 0 ] && echo 1 > panic\n'
        "echo 1 > panic_on_oops\n"
        "echo panic $(cat panic) $(cat panic_on_oops)\n"
        "grep -q ' /sys/fs/pstore ' /proc/mounts || mount -t pstore pstore /sys/fs/pstore "
        "2>/dev/null\n"
        "grep -q ' /sys/fs/pstore ' /proc/mounts && echo pstore\n"
        f"[ -e {LKDTM} ] && echo lkdtm\n:",
        _DEADLINE_S,
        what="the preflight",
    )
    said = set(output.splitlines())
    if scenario.trigger is not Trigger.LKDTM and "sysrq 1" not in said:
        raise UsageError(
            f"scenario {scenario.name}: the kernel has no sysrq", "Set CONFIG_MAGIC_SYSRQ."
        )
    if scenario.trigger is Trigger.LKDTM and "lkdtm" not in said:
        raise UsageError(
            f"scenario {scenario.name}: the kernel has no LKDTM: there is no {LKDTM}",
            "Set CONFIG_LKDTM, or take `lkdtm` off the board's features.",
        )
    if not any(re.fullmatch(r"panic -?[1-9][0-9]* 1", line) for line in said):
        raise BenchError("the board does not reset after a panic: panic= is 0", part="board")
    if "pstore" not in said:
        raise UsageError("the kernel has no pstore", "Set CONFIG_PSTORE and CONFIG_PSTORE_RAM.")
    if manifest is None or manifest.needed_bytes <= manifest.capacity_bytes:
        return ()
    return (
        Finding(
            subject=Subject.BOARD,
            kind=FindingKind.OVERFLOW,
            verdict=Verdict.PASS,
            message=f"the records may need {manifest.needed_bytes} bytes, "
            f"there is room for {manifest.capacity_bytes}",
        ),
    )
