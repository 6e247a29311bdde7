"""What the report of a night costs with a long history behind it.

    python -m tests.figures.night_report [--cycles 100000]

Nights are made through the real store; the last one's pages are written. Fails when that takes
longer than ten seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from farm.history import open_history
from farm.judge.run_folder import load_run
from farm.report.night import write_night_report
from tests.history.nights import LARGE, fill, make_night
from tests.report.nights import stored_night

LIMIT_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_history(out=Path(folder)) as history:
        nights = fill(history, options.cycles)
        night, runs = make_night(len(nights) - 1, LARGE)
        last = stored_night(Path(folder) / "nights", night, runs)
        started = time.monotonic()
        for name in night.runs:
            load_run(last / name)
        read_s = time.monotonic() - started
        started = time.monotonic()
        write_night_report(last, history)
        spent_s = time.monotonic() - started
        files = [path for path in (last / "report").rglob("*") if path.is_file()]
        size_bytes = sum(path.stat().st_size for path in files)
    print(
        f"report of a night of {len(night.cycles)} cycles, {options.cycles} in the history: "
        f"{spent_s:.1f} s, {spent_s / read_s:.1f} times reading its runs; "
        f"{len(files)} files, {size_bytes / (1 << 20):.1f} MiB"
    )
    if spent_s > LIMIT_S:
        sys.exit(f"longer than {LIMIT_S:.0f} s")


if __name__ == "__main__":
    main()
