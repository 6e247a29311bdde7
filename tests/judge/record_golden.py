"""Record the golden runs of the judge's tests: real panics on virtual boards.

    python -m tests.judge.record_golden

Each is two panics of one board, kept without consoles and reports. Needs the images of
`farm build`.
"""

from __future__ import annotations

import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
FARM = Path(sys.executable).with_name("farm")
DEVICES = "panicdump_sample.devices=b16,b256+r64,b1024,c1000,b40+c100"
KEPT = ("run.json", "input.json", "result.json")

# (name, environment, more of `farm virtual up`'s options, channels)
RUNS = (
    ("elf", "virtual.yaml", (), "pstorefs,sahara"),
    ("elf-ecc16", "virtual-ecc16.yaml", (), "pstorefs,sahara"),
    ("raw", "virtual-raw.yaml", (), "pstorefs"),
    ("raw-ecc16-memory", "virtual-raw.yaml", ("--ecc-size", "16"), "sahara"),
)


def environment(name: str, more: tuple[str, ...], folder: Path) -> Path:
    """The board's environment with small sample devices."""
    config = yaml.safe_load((ROOT / "devices" / name).read_text(encoding="utf-8"))
    target = config["targets"]["main"]
    start = target["options"]["bench"]["start"]
    if "--append" in start:
        start[start.index("--append") + 1] += f" {DEVICES}"
    else:
        start += ["--append", DEVICES]
    start += more
    target["drivers"]["Edl"]["programmer"] = str(ROOT / "devices" / "virtual-programmer.elf")
    path = folder / name
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def packed(run: Path) -> bytes:
    """What judging needs of a run's folder, as a tar archive without owners and times."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(run.rglob("*")):
            if path.is_file() and (path.name in KEPT or "captures" in path.parts):
                entry = tarfile.TarInfo(path.relative_to(run).as_posix())
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(entry, file)
    return lzma.compress(archive.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    """Record every run anew."""
    GOLDEN.mkdir(exist_ok=True)
    for name, device, more, channels in RUNS:
        with tempfile.TemporaryDirectory(prefix="farm-golden-") as temporary:
            folder = Path(temporary)
            lg_env = environment(device, more, folder)
            words = ["run", "--lg-env", str(lg_env), "--channel", channels, "--repeat", "2"]
            subprocess.run([FARM, *words, "--out", folder / "out", "--quiet"], check=True)
            (run,) = (folder / "out").iterdir()
            target = GOLDEN / f"{name}.tar.xz"
            target.write_bytes(packed(run))
            print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
