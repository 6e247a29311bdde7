"""How fast memory is read over Sahara, beside bare pyusb on the same device; `make bench`.

    python -m tests.figures.usb [--json]

The board's memory is a sparse file, its USB device the virtual board's; the reader is a program of
its own under libumockdev-preload. Bare pyusb asks for the same pieces and does nothing with them;
the ratio is the median of pairs that were read one after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from farm.virtual.board_memory import BoardMemory
from farm.virtual.sahara_device import ChipIdentity, SaharaDevice
from farm.virtual.usb_device import Device, Face
from farm.virtual.usb_faults import UsbFaults
from farm.virtual.usbfs import Plugged, Port, Tree

MEMORY_BYTES = 4 << 30
FILLED_BYTES = 256 << 20
BLOCK_BYTES = 64 << 20
ROUNDS = 15
CHUNKS = (1 << 16, 1 << 19, 1 << 20, 1 << 22)
SIZES = (256 << 20, 1 << 30, 4 << 30)
DEADLINE_S = 300.0

_READER = """
import json, resource, sys, time
from farm.qualcomm import usb
from farm.qualcomm.identity import Mode
from farm.qualcomm.ramdump import read_range, read_table
from farm.qualcomm.sahara import MemoryRead64, Sahara

chunk, size, rounds = (int(word) for word in sys.argv[1:4])
with usb.open_device(modes=frozenset({Mode.CRASH}), step="figure") as transport:
    sahara = Sahara(transport)
    sahara.connect()
    regions = read_table(sahara, sahara.memory_debug())
    base = regions[0].base
    seen = 0
    device, into, out = transport._device, transport._in, transport._out

    def by_sahara():
        def sink(data):
            global seen
            seen += len(data)
        for at in range(0, size, 2 << 30):
            count = min(2 << 30, size - at)
            read_range(sahara, regions, base + at, count, sink, chunk_bytes=chunk)

    def by_pyusb():
        global seen
        for at in range(0, size, chunk):
            device.write(out, MemoryRead64(base + at, chunk).pack(), 5000)
            seen += len(device.read(into, chunk, 5000))

    spent = {"sahara": [], "pyusb": []}
    for number in range(rounds):
        pair = [("sahara", by_sahara), ("pyusb", by_pyusb)]
        for name, read in pair if number % 2 else reversed(pair):
            if rounds == 1 and name == "pyusb":
                continue
            seen = 0
            before = time.monotonic()
            read()
            spent[name].append(time.monotonic() - before)
            assert seen == size, seen
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**spent, "rss_kib": rss}))
"""


def _read(tree: Path, chunk: int, size: int, rounds: int) -> dict[str, Any]:
    environment = os.environ | {
        "LD_PRELOAD": "libumockdev-preload.so.0",
        "UMOCKDEV_DIR": str(tree),
    }
    done = subprocess.run(
        [sys.executable, "-c", _READER, str(chunk), str(size), str(rounds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(chunks: tuple[int, ...] = CHUNKS, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """The figures: speed by chunk beside bare pyusb, then time and memory by size."""
    root = Path(tempfile.mkdtemp(prefix="farm-figure-"))
    dram = Path("/dev/shm") / f"{root.name}.dram"
    tree = Tree(root)
    tree.prepare()
    with dram.open("wb") as file:
        for _ in range(FILLED_BYTES >> 20):
            file.write(os.urandom(1 << 20))
        file.truncate(MEMORY_BYTES)
    memory = BoardMemory(dram, MEMORY_BYTES)
    half = SaharaDevice(
        ChipIdentity(1, 2, bytes(48)), memory, on_reset=lambda: None, on_programmer=lambda _: None
    )
    face = Face(0x05C6, 0x900E, (0xFF, 0xFF, 0x13), "Qualcomm", "QUSB_BULK_CID:0_SN:00000001")
    device = Device(face, UsbFaults())
    device.start(half.run, lambda: None)
    plugged = Plugged([tree], Port(1, 1, 2), device)
    try:
        by_chunk = []
        for chunk in chunks:
            # In one process and in turn, for a busy host slows either at random.
            size = min(BLOCK_BYTES, chunk * 512)
            found = _read(root, chunk, size, ROUNDS)
            times = {name: min(found[name]) for name in ("sahara", "pyusb")}
            ratios = [one / two for one, two in zip(found["pyusb"], found["sahara"], strict=True)]
            by_chunk.append(
                {
                    "chunk_bytes": chunk,
                    "sahara_mb_s": round(size / times["sahara"] / 1e6, 1),
                    "pyusb_mb_s": round(size / times["pyusb"] / 1e6, 1),
                    "ratio": round(median(ratios), 3),
                }
            )
        by_size = []
        for size in sizes:
            found = _read(root, chunks[-1], size, 1)
            by_size.append(
                {
                    "size_bytes": size,
                    "seconds": found["sahara"][0],
                    "rss_kib": found["rss_kib"],
                }
            )
    finally:
        plugged.unplug()
        memory.close()
        dram.unlink()
        shutil.rmtree(root)
    return {"by_chunk": by_chunk, "by_size": by_size}


def main() -> None:
    """Measure and print."""
    found = measure()
    if "--json" in sys.argv:
        print(json.dumps(found, indent=1))
        return
    for one in found["by_chunk"]:
        print(
            f"Sahara, chunks of {one['chunk_bytes'] >> 10:5} KiB: {one['sahara_mb_s']:7.1f} MB/s, "
            f"{one['ratio']:.2f} x bare pyusb ({one['pyusb_mb_s']:.1f} MB/s)"
        )
    for one in found["by_size"]:
        print(
            f"Sahara, {one['size_bytes'] >> 20:5} MiB: {one['seconds']:6.2f} s, "
            f"{one['rss_kib'] >> 10} MiB of memory"
        )


if __name__ == "__main__":
    main()
