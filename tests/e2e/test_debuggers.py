"""gdb opens the records of the CPUs and finds its way back through what panicked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from farm.formats.record import decode_record
from farm.virtual.options import default_image_dir
from tests.e2e.conftest import Board, Outcome
from tests.e2e.test_verdicts import captures

pytestmark = pytest.mark.virtual

# A call that does not return is the last thing in its function: the kernel then names the next one.
_CALL = re.compile(r"\] {2}([a-zA-Z_]\w*)\+0x(?!0/)[0-9a-f]+/0x[0-9a-f]+")
_FRAME = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \(", re.MULTILINE)


def _record(board: Board, outcome: Outcome, device: str) -> Path:
    for path in captures(board, outcome):
        data = path.read_bytes()
        if data.startswith(b"\x7fELF"):
            record = decode_record(data)
            if (record.driver, record.device) == ("cpu", device):
                return path
    raise AssertionError(f"no record of cpu {device}")


def _frames(path: Path) -> list[str]:
    """The functions that gdb finds, the innermost first; the kernel has been moved (KASLR)."""
    said = subprocess.run(
        [
            *("gdb-multiarch", "-nx", "-batch", "-ex", "backtrace"),
            *(str(default_image_dir() / "vmlinux"), str(path)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return _FRAME.findall(said)


def _call_trace(board: Board, outcome: Outcome) -> list[str]:
    """What the kernel itself says of the way to the panic, the innermost function first."""
    run = board.out / outcome.run["run_id"]
    console = (run / outcome.cycles[0]["folder"] / "console.log").read_text()
    trace = console.partition("Call trace:")[2].partition("Kernel Offset")[0]
    return _CALL.findall(trace)


def _in_order(wanted: list[str], frames: list[str]) -> bool:
    rest = iter(frames)
    return all(name in rest for name in wanted)


@pytest.mark.parametrize(
    ("scenario", "innermost"),
    [("sysrq-c", "sysrq_handle_crash"), ("lkdtm-exception", "lkdtm_EXCEPTION")],
)
def test_gdb_unwinds_the_task_that_panicked(board: Board, scenario: str, innermost: str) -> None:
    outcome = board.run("--scenario", scenario)
    assert outcome.code == 0, outcome.stderr
    frames = _frames(_record(board, outcome, "panic"))
    console = _call_trace(board, outcome)
    # panic() prints its own way there before it comes to the notifier.
    if "panic" in console:
        console = console[console.index("panic") :]
    assert len(console) > 5
    assert innermost in frames
    assert _in_order(console, frames), f"console {console}, gdb {frames}"

    # What the other CPU was doing: it mostly idles; else a kernel thread or the shell runs there,
    # or it serves an interrupt, on a stack for that, which is what the record then has.
    frames = _frames(_record(board, outcome, "others"))
    outermost = {"do_idle", "ret_from_fork", "el0t_64_sync", "el0t_64_irq", "call_on_irq_stack"}
    assert set(frames) & outermost, frames
