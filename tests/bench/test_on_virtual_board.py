from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.bench.environment import Bench, open_bench
from farm.bench.inject import inject, watch_panic, watch_reset
from farm.bench.pstorefs import collect_pstorefs, list_pstore, unlink_records
from farm.errors import BenchError
from farm.scenarios import scenario_named
from tests.bench.virtual_board import NONCE, environment, panicked

pytestmark = pytest.mark.virtual


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    # The path of a Unix socket must stay below 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="farm-bench-"))
    before = os.environ.get("PANIC_FARM_STATE")
    os.environ["PANIC_FARM_STATE"] = str(folder / "state")
    yield folder
    if before is None:
        del os.environ["PANIC_FARM_STATE"]
    else:
        os.environ["PANIC_FARM_STATE"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def virtual(root: Path) -> Iterator[Bench]:
    with open_bench(environment(root, "bench")) as bench:
        yield bench


@pytest.mark.parametrize(
    "name", ["sysrq-c", "break-c", "lkdtm-panic", "lkdtm-bug", "lkdtm-exception"]
)
def test_each_scenario_does_what_its_entry_says(virtual: Bench, tmp_path: Path, name: str) -> None:
    virtual.console.record_to(tmp_path)
    manifest, account = panicked(virtual, name)
    assert account.panic_line is not None
    assert account.signature_found, "\n".join(account.panic_console_lines)
    assert account.reset == "warm"
    assert account.boot_id_after not in (None, manifest.boot_id)
    assert account.release_after == manifest.kernel_release
    assert account.build_id_after == manifest.build_id
    assert manifest.nonce == NONCE
    assert {one.driver for one in manifest.devices} >= {"panicdump-sample"}
    captures = collect_pstorefs(virtual.shell, tmp_path, deadline_s=60)
    assert len(captures) == len(manifest.devices) + 1
    assert all(one.complete for one in captures)
    unlink_records(virtual.shell, [one.board_name for one in captures])
    left = [one.name for one in list_pstore(virtual.shell).files]
    assert not [one for one in left if one.startswith("panicdump-")]
    raw = (tmp_path / "console.raw").read_bytes()
    assert b"Kernel panic - not syncing" in raw
    assert b"Booting Linux" in raw


def test_memory_is_lost_with_the_power(virtual: Bench) -> None:
    virtual.ensure_shell()
    scenario = scenario_named("sysrq-c")
    injection = inject(scenario, virtual.console, virtual.shell)
    assert injection.memory_mark is not None
    panic = watch_panic(injection, scenario, virtual.console, virtual.options.deadlines_s)
    virtual.power.off()
    virtual.power.on()
    account, _ = watch_reset(
        panic, injection, virtual.console, virtual.shell, virtual.options.deadlines_s
    )
    assert account.reset == "cold"


def test_records_are_read_over_a_slow_line(root: Path, tmp_path: Path) -> None:
    with open_bench(environment(root, "slow", "--baud", "115200")) as bench:
        panicked(bench, "sysrq-c")
        told: list[int] = []
        captures = collect_pstorefs(
            bench.shell, tmp_path, deadline_s=120, progress=lambda done, total: told.append(done)
        )
        bench.safe_state()
    assert all(one.complete for one in captures)
    assert told[-1] == sum(one.size_bytes for one in captures)


def test_a_board_that_dies_is_lost_at_once(root: Path) -> None:
    with open_bench(environment(root, "dies")) as bench:
        bench.ensure_shell()
        subprocess.run(
            [str(Path(sys.executable).with_name("farm")), "virtual", "down", "--name", "dies"],
            check=True,
        )
        began = time.monotonic()
        with pytest.raises(BenchError) as caught:
            bench.console.wait_for("never", 60, "a word")
        assert caught.value.part == "serial"
        assert time.monotonic() - began < 5
        with pytest.raises(BenchError):
            bench.ensure_shell()
