"""Coverage-guided fuzzing: python -m tests.fuzz.atheris_run TARGET [SECONDS]

`make fuzz` runs every target, ten minutes of processor time each. An input that crashes, takes more
than a second for a mebibyte or more than 1 GiB of memory is left in .fuzz/TARGET/; cut down and
moved to tests/fuzz/corpus/TARGET/, it is replayed by `make test` from then on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["farm"]):
    from tests.fuzz.targets import TARGETS, budget_s

CORPUS = Path(__file__).parent / "corpus"
SCRATCH = Path(".fuzz")
MAX_BYTES = 64 << 10
MEMORY_MIB = 1024
# What is instrumented by atheris keeps some of its numbers for ever, which the same inputs without
# it do not: from so much on, a fresh process goes on with what was found.
FRESH_MIB = 512
INPUTS = "PANIC_FARM_FUZZ_INPUTS"
# libFuzzer's own time-out, by the clock on the wall, is for hangs: slowness is measured here, in
# processor time and against the size of the input.
HANG_S = 120


def _used_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> None:
    """Fuzz one target for so much processor time."""
    name, seconds = sys.argv[1], float(sys.argv[2] if len(sys.argv) > 2 else "600")
    target = TARGETS[name]
    inputs = int(os.environ.get(INPUTS, "0"))

    def run(data: bytes) -> None:
        nonlocal inputs
        begin = time.process_time()
        if begin > seconds:
            # libFuzzer ends by the clock on the wall only, which says nothing on a busy machine.
            print(f"{name}: {inputs} inputs in {begin:.0f} s of processor time, none bad")
            sys.stdout.flush()
            os._exit(0)
        if inputs % 256 == 0 and _used_mib() > FRESH_MIB:
            # libFuzzer's alarm outlives exec, its handler does not: to load may take longer.
            signal.setitimer(signal.ITIMER_REAL, 0)
            # The processor time of a process outlives exec, too.
            os.environ[INPUTS] = str(inputs + 1)
            command = [sys.executable, "-m", "tests.fuzz.atheris_run", *sys.argv[1:]]
            os.execv(sys.executable, command)
        target(data)
        inputs += 1
        took_s = time.process_time() - begin
        # Instrumented code is several times slower.
        if took_s > 4 * budget_s(len(data)):
            raise RuntimeError(f"{took_s:.2f} s for {len(data)} bytes")

    found = SCRATCH / name
    found.mkdir(parents=True, exist_ok=True)
    seeds = CORPUS / name
    seeds.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_len={MAX_BYTES}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={HANG_S}",
        f"-artifact_prefix={found}/crash-",
        str(found),
        str(seeds),
    ]
    # New inputs go to the scratch folder; crashes beside them.
    atheris.Setup(arguments, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
