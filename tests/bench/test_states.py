"""Every state from every state, and where the board is in each."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.bench.environment import Bench, open_bench
from farm.bench.strategy import Status
from farm.bench.whereabouts import Place
from tests.bench.virtual_board import environment

pytestmark = pytest.mark.virtual

STATES = (Status.off, Status.edl, Status.crash, Status.fastboot, Status.shell)
PLACES = {
    Status.off: Place.OFF,
    Status.edl: Place.EDL,
    Status.crash: Place.CRASH,
    Status.fastboot: Place.FASTBOOT,
    Status.shell: Place.SHELL,
}
ANSWER_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="farm-states-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANIC_FARM_STATE", str(root / "state"))
        with open_bench(environment(root, "states")) as bench:
            yield bench
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in itertools.product(STATES, STATES) if pair[0] is not pair[1]],
    ids=lambda state: str(state.value),
)
def test_any_state_leads_to_any_other(bench: Bench, first: Status, second: Status) -> None:
    bench.strategy.transition(first)
    bench.strategy.transition(second)
    where = bench.strategy.where()
    assert where.place is PLACES[second], where
    assert where.seconds < ANSWER_WITHIN_S


def test_memory_outlives_every_warm_way(bench: Bench, tmp_path: Path) -> None:
    """Crash mode, bootloader and boot ROM read the same bytes of one panic."""
    bench.strategy.transition(Status.crash)
    manifest_free = 0x5FD0_0000
    target = tmp_path / "crash"
    bench.strategy.driver("crash").read(manifest_free, 4096, target)
    bench.strategy.transition(Status.shell)
    bench.shell.run_script("devmem 0x5fdff800 32 0x12345678", 5.0)
    bench.strategy.transition(Status.edl)
    bench.strategy.driver("edl").peek(0x5FDF_F800, 64, target)
    assert target.read_bytes()[:4] == bytes.fromhex("78563412")
    bench.strategy.transition(Status.crash)
    bench.strategy.driver("crash").read(0x5FDF_F800, 64, target)
    assert target.read_bytes()[:4] == bytes.fromhex("78563412")
