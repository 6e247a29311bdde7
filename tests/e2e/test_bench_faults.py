"""A bench that fails at a random moment is named as the cause; the kernel is never blamed.

`make faults RUNS=100 SEED=1` disturbs as many runs; `make test` a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.e2e.bench_faults import disturbed_run, with_deadlines
from tests.e2e.conftest import Board

pytestmark = pytest.mark.virtual

RUNS = int(os.environ.get("PANIC_FARM_FAULT_RUNS", "4"))
SEED = int(os.environ.get("PANIC_FARM_FAULT_SEED", "1"))


@pytest.fixture(scope="module")
def disturbed(make_board: Callable[..., Board]) -> Board:
    board = make_board("disturbed", "--baud", "921600")
    with_deadlines(board)
    return board


# Once: what is written to pmsg is what the boot after finds in pstore.
REBOOT_ONCE = (
    "mount -t pstore pstore /sys/fs/pstore 2>/dev/null; "
    "grep -qs once-more /sys/fs/pstore/pmsg-* || "
    "{ echo once-more > /dev/pmsg0; reboot -f; sleep 60; }"
)


def test_a_board_that_boots_between_arming_and_panic_is_the_bench_s_fault(disturbed: Board) -> None:
    outcome = disturbed.run("--scenario", "sysrq-c", "--before-panic", REBOOT_ONCE)
    assert outcome.code == 3, outcome.stderr
    assert "after it had been armed" in outcome.cycles[0]["result"]["why"]


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_a_disturbed_run_never_blames_the_kernel(disturbed: Board, seed: int) -> None:
    result = disturbed_run(disturbed, seed)
    print(f"\n{seed}: {result.fault} at {result.at_s:.1f} s: {result.verdict}: {result.why}")
    assert not result.wrong, result
