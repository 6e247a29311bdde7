"""Write the golden files that a kernel made: python -m tests.formats.capture_kernel

Boots the virtual board with what `farm build` made last, panics it, and keeps what it left: both
forms of record without ECC, and the ELF form with 16 bytes of it. Per variant:

    origin.json       kernel, nonce and sample devices; which file of pstorefs each record was
    table.txt         debugfs just before the panic: what the records are held against
    contents.bin      a file of pstorefs
    device.bin        another, of a device with regions of all kinds
    zone.bin.gz       the whole panicdump zone, read from the board's memory, not by its kernel
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from pathlib import Path

from farm.bench.environment import open_bench
from farm.bench.manifest import TABLE
from farm.bench.pstorefs import collect_pstorefs
from farm.formats.record import RecordKind, decode_record
from farm.virtual.devicetree import RAM_BASE_PADDR, read_ramoops
from farm.virtual.layout import BoardDir
from farm.virtual.options import BoardOptions
from tests.bench.virtual_board import NONCE, environment, panicked

GOLDEN = Path(__file__).parent / "golden" / "kernel"
# Small, for they stay in the repository; the last one has a region of each kind.
DEVICES = "b16,b24+r256,c1000,b100+r64+c33"
WITH_ALL_KINDS = "panicdump-sample.3"
VARIANTS = {
    "elf": ("", 0),
    "raw": (" panicdump.format=raw", 0),
    "elf-ecc16": ("", 16),
}


def capture(root: Path, variant: str) -> None:
    """Panic a board of this variant and write its golden files."""
    append, ecc_size_bytes = VARIANTS[variant]
    arguments = f"panicdump_sample.devices={DEVICES}{append}"
    lg_env = environment(
        root, variant, "--append", repr(arguments), "--ecc-size", repr(str(ecc_size_bytes))
    )
    folder = GOLDEN / variant
    folder.mkdir(parents=True, exist_ok=True)
    with open_bench(lg_env) as bench:
        bench.ensure_shell()
        table = bench.shell.run_script(
            f"[ -e {TABLE} ] || mount -t debugfs debugfs /sys/kernel/debug\ncat {TABLE}", 10
        )
        manifest, account = panicked(bench, "sysrq-c")
        if account.reset != "warm":
            raise RuntimeError(f"{variant}: the reset was {account.reset}")
        captures = collect_pstorefs(bench.shell, root / variant, deadline_s=60)
        zone = panicdump_zone(variant)
        bench.safe_state()
    files = {}
    for one in captures:
        data = (root / variant / one.path).read_bytes()
        record = decode_record(data)
        if record.kind is RecordKind.CONTENTS:
            files["contents.bin"] = (one.board_name, data)
        elif record.device == WITH_ALL_KINDS:
            files["device.bin"] = (one.board_name, data)
    for name, (_, data) in files.items():
        (folder / name).write_bytes(data)
    (folder / "table.txt").write_text(table + "\n", encoding="ascii")
    (folder / "zone.bin.gz").write_bytes(gzip.compress(zone, 9, mtime=0))
    origin = {
        "origin": "python -m tests.formats.capture_kernel, on the virtual board",
        "kernel_release": manifest.kernel_release,
        "build_id": manifest.build_id,
        "nonce": f"{NONCE:#018x}",
        "devices": DEVICES,
        "format": "raw" if "raw" in variant else "elf",
        "ecc_size_bytes": ecc_size_bytes,
        "files": {name: board_name for name, (board_name, _) in files.items()},
    }
    (folder / "origin.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="ascii")


def panicdump_zone(board: str) -> bytes:
    """Read the zone from the file that is the board's memory."""
    where = BoardDir.of(board)
    options = BoardOptions.model_validate_json(where.options.read_bytes())
    area = read_ramoops(options.dtb, options.ecc_size_bytes)
    if area is None:
        raise RuntimeError(f"{options.dtb} has no ramoops")
    (zone,) = [one for one in area.zones if one.name == "panicdump"]
    (dram,) = [file for file in where.dram_candidates() if file.exists()]
    with dram.open("rb") as memory:
        memory.seek(zone.paddr - RAM_BASE_PADDR)
        return memory.read(zone.length_bytes)


def main() -> None:
    """Write all variants."""
    # The path of a Unix socket must stay below 108 bytes.
    with tempfile.TemporaryDirectory(prefix="farm-golden-") as folder:
        os.environ["PANIC_FARM_STATE"] = f"{folder}/state"
        for variant in VARIANTS:
            capture(Path(folder), variant)


if __name__ == "__main__":
    main()
