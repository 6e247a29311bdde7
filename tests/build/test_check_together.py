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
from tests.figures.processes import has_ended
from tests.waiting import wait_until

LONG_S = 60.0
SOON_S = 20.0


def number_in(path: Path) -> int:
    """Wait for the number that a tool writes to ``path``."""
    wait_until(lambda: path.is_file() and path.read_text().endswith("\n"), str(path), SOON_S)
    return int(path.read_text())


def long_tool(folder: Path) -> int:
    """Run a tool that writes its number and stays."""
    script = f"echo $$ > {folder}/pid; exec sleep {LONG_S}"
    process.run(["sh", "-c", script], what="a tool", log=folder / "log")
    return 0


def test_what_they_return_comes_in_their_order(tmp_path: Path) -> None:
    def late() -> int:
        wait_until((tmp_path / "other").exists, "the other", SOON_S)
        return 1

    def other() -> int:
        (tmp_path / "other").touch()
        return 2

    assert together([late, other, lambda: 3]) == [1, 2, 3]


def test_they_are_done_at_once(tmp_path: Path) -> None:
    def meet(own: str, other: str) -> bool:
        (tmp_path / own).touch()
        wait_until((tmp_path / other).exists, other, SOON_S)
        return True

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
    tool = number_in(tmp_path / "pid")
    wait_until(lambda: has_ended(tool), f"the end of {tool}", SOON_S)


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
    wait_until(lambda: all(has_ended(tool) for tool in tools), f"the end of {tools}", SOON_S)
