"""Every description's strategy walks all its states, on a virtual board with its personality.

Two in `make test`, one like lk2nd and one like ABL; all others in `make boards`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.bench.environment import open_bench
from farm.bench.strategy import Status
from farm.bench.whereabouts import Place
from tests.bench.virtual_board import DEVICES
from tests.boards.on_virtual_board import description_on_virtual_board

BOARDS = sorted(path for path in DEVICES.glob("*.yaml") if not path.stem.startswith("virtual"))
QUICK = ("apq8016-sbc", "qrb4210-rb2")

# Each state is reached and left, EDL and fastboot both from a shell and from off.
WALK = (
    (Status.fastboot, Place.FASTBOOT),
    (Status.shell, Place.SHELL),
    (Status.edl, Place.EDL),
    (Status.crash, Place.CRASH),
    (Status.fastboot, Place.FASTBOOT),
    (Status.edl, Place.EDL),
    (Status.off, Place.OFF),
    (Status.edl, Place.EDL),
    (Status.shell, Place.SHELL),
    (Status.off, Place.OFF),
)

# A virtual board needs two or three of them.
DEADLINE_S = 25.0


@pytest.fixture
def root() -> Iterator[Path]:
    # Short: the path of a socket has 108 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="farm-walk-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANIC_FARM_STATE", str(folder / "state"))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def walk(file: Path, root: Path) -> None:
    with (
        description_on_virtual_board(file, root, "walk") as lg_env,
        open_bench(lg_env) as bench,
    ):
        bench.strategy.boot_deadline_s = DEADLINE_S
        for state, place in WALK:
            bench.strategy.transition(state)
            end = time.monotonic() + DEADLINE_S
            # A debug board says nothing of the power, and obeys when it has read the letter.
            silent = place is Place.OFF and bench.strategy.switch.is_on() is None
            wanted = (place, Place.UNKNOWN, Place.HUNG) if silent else (place,)
            while (where := bench.strategy.where()).place not in wanted:
                assert silent, (state, where)
                assert time.monotonic() < end, (state, where)


@pytest.mark.virtual
@pytest.mark.parametrize("name", QUICK)
def test_a_description_walks_all_its_states(name: str, root: Path) -> None:
    walk(DEVICES / f"{name}.yaml", root)


@pytest.mark.boards
@pytest.mark.parametrize(
    "file", [one for one in BOARDS if one.stem not in QUICK], ids=lambda path: path.stem
)
def test_every_description_walks_all_its_states(file: Path, root: Path) -> None:
    walk(file, root)
