"""Work in processes of its own: what it returns, how it fails, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farm.build import process
from farm.build.check.together import together
from farm.errors import BuildError

LONG_S = 60.0
SOON_S = 20.0


def gone(pid: int) -> bool:
    """Say whether the process ends soon; one that nobody has waited for yet has ended."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def number_in(path: Path) -> int:
    """Wait for the number that a tool writes to ``path``."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        if path.is_file() and path.read_text().endswith("\n"):
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(f"nothing in {path}")


def long_tool(folder: Path) -> int:
    """Run a tool that writes its number and stays."""
    script = f"echo $$ > {folder}/pid; exec sleep {LONG_S}"
    process.run(["sh", "-c", script], what="a tool", log=folder / "log")
    return 0


def test_what_they_return_comes_in_their_order() -> None:
    def late() -> int:
        time.sleep(0.3)
        return 1

    assert together([late, lambda: 2, lambda: 3]) == [1, 2, 3]


def test_they_are_done_at_once(tmp_path: Path) -> None:
    def meet(own: str, other: str) -> bool:
        (tmp_path / own).touch()
        end = time.monotonic() + SOON_S
        while not (tmp_path / other).exists() and time.monotonic() < end:
            time.sleep(0.01)
        return (tmp_path / other).exists()

    assert together([lambda: meet("a", "b"), lambda: meet("b", "a")]) == [True, True]


def test_an_error_ends_the_others_with_their_tools(tmp_path: Path) -> None:
    def fails() -> int:
        number_in(tmp_path / "pid")
        raise BuildError("the disk is full", log="a.log", next_step="make room")

    begin = time.monotonic()
    with pytest.raises(BuildError, match="the disk is full") as caught:
        together([lambda: long_tool(tmp_path), fails])
    assert (caught.value.log, caught.value.next_step) == ("a.log", "make room")
    assert time.monotonic() - begin < LONG_S / 2
    assert gone(number_in(tmp_path / "pid"))


def test_a_process_that_dies_is_an_error() -> None:
    def dies() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(BuildError, match="has died"):
        together([dies])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_whole_is_the_end_of_every_tool(tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "from pathlib import Path\n"
        "from farm.build.check.together import together\n"
        "from farm.signals import termination_as_interrupt\n"
        "from tests.build.test_check_together import long_tool\n"
        f"folders = [Path({str(tmp_path)!r}) / name for name in ('a', 'b')]\n"
        "with termination_as_interrupt():\n"
        "    together([lambda folder=folder: long_tool(folder) for folder in folders])\n"
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    tools = [number_in(tmp_path / name / "pid") for name in ("a", "b")]
    child.send_signal(how)
    assert child.wait(timeout=SOON_S) != 0
    assert all(gone(tool) for tool in tools)
