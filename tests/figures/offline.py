"""How fast what came off a board is decoded, beside its peers; `make bench`.

    python -m tests.figures.offline [--json]

A dump of 1 GiB, without holes and without symbols, is looked through and its regions are written,
beside `cat` of the same file, both from the page cache: the whole command, with the third of a
second in which Python begins, and the work alone. All processors take part, so that it is the clock
that is compared, the best of five in turn. The ECC of a zone is checked beside reedsolo, which
checks the same code words, by processor time.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reedsolo import RSCodec

from farm.formats import ecc

DUMP_BYTES = 1 << 30
BASE_PADDR = 0x8000_0000
TABLE_AT = 700 << 20
ENTRIES_AT = 900 << 20
REGIONS_AT = 300 << 20
REGIONS = 64
REGION_BYTES = 64 << 10
ZONE_BYTES = 512 << 10
REPEATS = 5
_FARM = Path(sys.executable).with_name("farm")


def write_dump(path: Path) -> None:
    """Memory that compresses badly, with a table of regions in it."""
    noise = random.Random(1).randbytes((1 << 20) + 4096)
    with path.open("wb") as file:
        for number in range(DUMP_BYTES >> 20):
            file.write(noise[number : number + (1 << 20)])
        head = struct.pack(
            "<16s4H2I16s2Q",
            b"PANICDUMP-TABLE",
            *(1, 64, 192, 0),
            *(REGIONS, REGIONS),
            bytes(range(16)),
            0xFFFF_8000_0000_0000 + ENTRIES_AT,
            BASE_PADDR + ENTRIES_AT,
        )
        file.seek(TABLE_AT + 8 * 77)
        file.write(head)
        for number in range(REGIONS):
            at = REGIONS_AT + number * REGION_BYTES
            entry = struct.pack(
                "<2I3Q2I2HI32s64s32s16x",
                *(number + 1, 0, 0xFFFF_8000_0000_0000 + at, BASE_PADDR + at, REGION_BYTES),
                *(1, 0, 0, 0, 2),
                *(b"driver", f"device.{number}".encode(), b"buffer"),
            )
            file.seek(ENTRIES_AT + number * len(entry))
            file.write(entry)


_WORK = """
import sys, time
from pathlib import Path
from farm.decode.findings import Given, recognise
from farm.decode.output import write_regions
given = Given(base_paddr=int(sys.argv[3]) if len(sys.argv) > 3 else None)
begin = time.perf_counter()
assert write_regions(recognise([Path(sys.argv[1])], given), Path(sys.argv[2])) == 64
print(time.perf_counter() - begin)
"""


def _run(command: Sequence[str | Path]) -> tuple[float, int]:
    """Seconds and KiB of memory of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return seconds, usage.ru_maxrss


def memory_figures(root: Path) -> dict[str, Any]:
    """The command as a user calls it, in turn with cat."""
    dump = root / "ram.bin"
    write_dump(dump)
    _run(["cat", dump])
    ways: dict[str, list[str]] = {"base given": ["--base", hex(BASE_PADDR)], "base found out": []}
    work: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {"cat": [], **{way: [] for way in ways}}
    rss_kib = 0
    for number in range(REPEATS):
        seconds["cat"].append(_run(["cat", dump])[0])
        for way, options in ways.items():
            out = root / f"{way.replace(' ', '-')}-{number}"
            command: list[str | Path] = [
                _FARM,
                "decode",
                dump,
                "--json",
                "--regions",
                out,
                *options,
            ]
            spent, used_kib = _run(command)
            seconds[way].append(spent)
            base = [str(BASE_PADDR)] if options else []
            done = subprocess.run(
                [sys.executable, "-c", _WORK, dump, f"{out}-work", *base],
                capture_output=True,
                text=True,
                check=True,
            )
            work[way].append(float(done.stdout))
            rss_kib = max(rss_kib, used_kib)
            written = sorted(out.iterdir())
            if len(written) != REGIONS or any(
                one.stat().st_size != REGION_BYTES for one in written
            ):
                raise RuntimeError(f"{len(written)} regions were written")
    cat = min(seconds.pop("cat"))
    return {
        "dump_bytes": DUMP_BYTES,
        "cat_s": cat,
        "ways": {
            way: {
                "command_s": min(spent),
                "command_ratio": min(spent) / cat,
                "work_s": min(work[way]),
                "work_ratio": min(work[way]) / cat,
            }
            for way, spent in seconds.items()
        },
        "rss_kib": rss_kib,
    }


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def ecc_figures() -> list[dict[str, float]]:
    """The whole zone by numpy, a share of it by reedsolo."""
    data = random.Random(2).randbytes(ZONE_BYTES)
    figures = []
    for ecc_bytes in (8, 16, 32):
        parity = ecc.parity(data, ecc_bytes)
        ours_s = _best(lambda e=ecc_bytes, p=parity: ecc.damaged_blocks(data, p, e))  # type: ignore[misc]
        codec = RSCodec(ecc_bytes, fcr=0, prim=0x11D, generator=2)
        words = [
            data[128 * n : 128 * n + 128] + parity[ecc_bytes * n : ecc_bytes * (n + 1)]
            for n in range(256)
        ]
        theirs_s = _best(lambda c=codec, w=words: [c.check(one) for one in w])  # type: ignore[misc]
        ours, theirs = ZONE_BYTES / ours_s, 256 * 128 / theirs_s
        figures.append(
            {
                "ecc_bytes": ecc_bytes,
                "mb_s": ours / 1e6,
                "reedsolo_mb_s": theirs / 1e6,
                "ratio": ours / theirs,
            }
        )
    return figures


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        memory = memory_figures(Path(folder))
    ecc_found = ecc_figures()
    found = {"memory": memory, "ecc": ecc_found}
    if "--json" in sys.argv:
        print(json.dumps(found, indent=1))
        return
    for way, one in memory["ways"].items():
        print(
            f"dump of {DUMP_BYTES >> 20} MiB, {way}: {one['work_ratio']:.2f} x cat, the command "
            f"{one['command_ratio']:.2f} x ({memory['cat_s']:.2f} s), "
            f"{memory['rss_kib'] >> 10} MiB of memory"
        )
    for one in ecc_found:
        print(
            f"ECC of {one['ecc_bytes']:2.0f} bytes: {one['mb_s']:6.1f} MB/s, "
            f"{one['ratio']:.0f} x reedsolo ({one['reedsolo_mb_s']:.2f} MB/s)"
        )


if __name__ == "__main__":
    main()
