"""Arming: what the live board says of itself just before the panic, in few round trips."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import struct
from dataclasses import dataclass

from farm.bench.pstorefs import LIST_SCRIPT, Listing, parse_listing
from farm.bench.shell import BoardShell
from farm.errors import BenchError, FormatError, UsageError
from farm.formats.table import Table, parse_table
from farm.model import Manifest, ManifestDevice, ManifestRegion, Ramoops, RegionKind
from farm.scenarios import Scenario, Trigger

TABLE = "/sys/kernel/debug/panicdump/table"
NONCE = "/sys/kernel/debug/panicdump-sample/nonce"
LKDTM = "/sys/kernel/debug/provoke-crash/DIRECT"

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

# A process costs an emulated board milliseconds: the scripts use what the shell does by itself.
# A folder without a file is a debugfs that is not mounted.
MOUNT_DEBUGFS = (
    "for f in /sys/kernel/debug/*; do break; done; "
    '[ -e "$f" ] || mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null\n'
)

_PREFLIGHT = f"""\
cd /proc/sys/kernel
[ -e sysrq ] && echo 1 > sysrq
# A shell reads byte by byte, and of a number here gets the first one only.
read -r x < panic; [ "$x" = 0 ] && echo 1 > panic
echo 1 > panic_on_oops
grep . sysrq panic panic_on_oops
p() {{ grep -q ' /sys/fs/pstore ' /proc/mounts && echo pstore; }}
p || {{ mount -t pstore pstore /sys/fs/pstore; p; }}
[ -e {LKDTM} ] && echo lkdtm"""

# ramoops does not write the ECC size of a device tree back into its module parameter.
_SCRIPTS = {
    "identity": "read -r x < /proc/sys/kernel/osrelease && echo $x; base64 /sys/kernel/notes",
    "table": f"[ -e {TABLE} ] && cat {TABLE}",
    "ramoops": "cd /sys/module/ramoops/parameters && "
    "for f in *; do read -r x < $f && echo $f:$x; done",
    "dtecc": "od -An -tx1 /proc/device-tree/reserved-memory/ramoops*/ecc-size",
    "backend": "read -r x < /sys/module/pstore/parameters/backend && echo $x",
    "cmdline": "read -r x < /proc/cmdline && printf '%s\\n' \"$x\"",
    "pstore": f"(\n{LIST_SCRIPT}\n)",
}
# The table's first two lines, of which one says the boot.
STATE_SCRIPT = f'{{ read -r x; echo "$x"; read -r x; echo "$x"; }} < {TABLE}'
_AFTER_PANIC = {
    "identity": _SCRIPTS["identity"],
    "state": STATE_SCRIPT,
    "pstore": _SCRIPTS["pstore"],
    # What user space of the boot before wrote to /dev/pmsg0.
    "pmsg": "tail -c 256 /sys/fs/pstore/pmsg-*",
}


def _sections(
    shell: BoardShell, scripts: dict[str, str], deadline_s: float, what: str
) -> dict[str, str]:
    """Run several scripts in one round trip; return the output of each."""
    mark = f"@{secrets.token_hex(8)}"
    parts = [f"echo {mark}{name}\n{{\n{text}\n}} 2>/dev/null" for name, text in scripts.items()]
    script = MOUNT_DEBUGFS + "\n".join(parts) + f"\necho {mark}end\n:"
    output = shell.run_script(script, deadline_s, what=what)
    found: dict[str, str] = {}
    for piece in (output + "\n").split(mark)[1:]:
        name, _, text = piece.partition("\n")
        found[name] = text
    if tuple(found) != (*scripts, "end"):
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


def arm(
    shell: BoardShell, board: str, scenario: Scenario, nonce: int, deadline_s: float = 20.0
) -> Manifest:
    """Make the board ready for ``scenario``, and read what judging needs to know of it.

    All in one round trip: enables sysrq, and panic= and panic_on_oops where they are off; mounts
    debugfs and pstore; plants the 64-bit ``nonce`` in the sample devices, if there are any. Raises
    UsageError when the kernel lacks panicdump or what the scenario needs, FormatError (offset:
    line) for a malformed table, BenchError for the rest.
    """
    scripts = {"preflight": _PREFLIGHT, "nonce": _nonce_script(nonce), **_SCRIPTS}
    found = _sections(shell, scripts, deadline_s, "arming")
    release, build_id = parse_identity(found["identity"])
    _check_preflight(set(found["preflight"].splitlines()), scenario)
    table = _parse_table(found["table"], board, release)
    return Manifest(
        board=board,
        scenario=scenario.name,
        nonce=_planted(found["nonce"].strip(), nonce),
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


def _check_preflight(said: set[str], scenario: Scenario) -> None:
    needs_sysrq = scenario.trigger in (Trigger.SYSRQ_SHELL, Trigger.SERIAL_BREAK)
    if needs_sysrq and "sysrq:1" not in said:
        raise UsageError(
            f"scenario {scenario.name}: the kernel has no sysrq", "Set CONFIG_MAGIC_SYSRQ."
        )
    if scenario.trigger is Trigger.LKDTM and "lkdtm" not in said:
        raise UsageError(
            f"scenario {scenario.name}: the kernel has no LKDTM: there is no {LKDTM}",
            "Set CONFIG_LKDTM, or take `lkdtm` off the board's features.",
        )
    if not any(re.fullmatch(r"panic:-?[1-9][0-9]*", line) for line in said):
        raise BenchError("the board does not reset after a panic: panic= is 0", part="board")
    if "panic_on_oops:1" not in said:
        raise BenchError("an oops does not panic the board: panic_on_oops is 0", part="board")
    if "pstore" not in said:
        raise UsageError("the kernel has no pstore", "Set CONFIG_PSTORE and CONFIG_PSTORE_RAM.")


def _nonce_script(nonce: int) -> str:
    write = f"echo 0x{nonce:016x} > {NONCE}"
    return f"if [ -e {NONCE} ]; then\n{write}\nread -r x < {NONCE}; echo reads $x\nfi"


def _planted(said: str, nonce: int) -> int | None:
    """Return the nonce if the board holds it, None without sample devices."""
    if not said:
        return None
    text = said.removeprefix("reads").strip()
    try:
        got = int(text, 16)
    except ValueError:
        got = None
    if got != nonce:
        raise BenchError(
            f"{NONCE} reads {text[:80]!r} after 0x{nonce:016x} was written", part="board"
        )
    return nonce


@dataclass(frozen=True)
class AfterPanic:
    """What the boot after a panic says of itself; ``boot_id`` is None without panicdump.

    ``pmsg`` is the end of what user space of the boot before wrote to /dev/pmsg0.
    """

    boot_id: str | None
    release: str
    build_id: str | None
    listing: Listing
    pmsg: str


def boot_id_of(state: str) -> str | None:
    """The boot that ``STATE_SCRIPT`` told of; None without panicdump."""
    found = re.search(r"^state boot_id=([0-9a-fA-F-]{36}) ", state, re.MULTILINE)
    return found[1].lower() if found else None


def after_panic(shell: BoardShell, deadline_s: float = 20.0) -> AfterPanic:
    """Ask the new boot, in one round trip; raises BenchError."""
    found = _sections(shell, _AFTER_PANIC, deadline_s, "reading the identity after the panic")
    release, build_id = parse_identity(found["identity"])
    listing = parse_listing(found["pstore"])
    return AfterPanic(boot_id_of(found["state"]), release, build_id, listing, found["pmsg"])
