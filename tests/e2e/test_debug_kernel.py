"""The scenarios and the KUnit cases on a kernel that looks for its own mistakes.

KASAN, lockdep and the others find what a test of results cannot: a lock taken in the wrong context
in the panic path, a byte read beyond a buffer. `make debug-kernel` runs these.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.scenarios import CATALOGUE
from tests.e2e.conftest import FARM, ROOT
from tests.e2e.splats import ASK_THE_BOARD, beside_the_scenario, splats
from tests.virtual.bench import PROMPT, Console

pytestmark = pytest.mark.debug_kernel

LG_ENV = ROOT / "devices" / "virtual-debug.yaml"
CYCLE_S = 240.0
BOOT_S = 600.0
# Each is found by another part of the kernel; the board lives on.
MISTAKES = ("READ_AFTER_FREE", "WARNING")


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Boards of this module's own; a Unix socket's path must be short."""
    root = tempfile.mkdtemp(prefix="farm-debug-")
    variables = {**os.environ, "PANIC_FARM_STATE": f"{root}/state"}
    yield variables
    subprocess.run([FARM, "virtual", "down", "--all"], env=variables, check=False, timeout=60)
    shutil.rmtree(root, ignore_errors=True)


def farm_run(environment: dict[str, str], out: Path, count: int, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [FARM, "run", "--lg-env", str(LG_ENV), "--out", str(out), "--json", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=count * CYCLE_S,
        check=False,
    )
    account: dict[str, Any] = json.loads(done.stdout)
    return account


def consoles(account: dict[str, Any], out: Path) -> dict[str, str]:
    """Cycle's folder to what its console showed."""
    run = out / account["run_id"]
    return {
        cycle["folder"]: (run / cycle["folder"] / "console.raw")
        .read_bytes()
        .decode(errors="replace")
        for cycle in account["cycles"]
    }


@pytest.fixture(scope="module")
def all_scenarios(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, str]]:
    out = tmp_path_factory.mktemp("debug")
    names = [word for scenario in CATALOGUE for word in ("--scenario", scenario.name)]
    # What the reading back of one cycle leaves in the log is shown in the next.
    names += ["--before-panic", ASK_THE_BOARD]
    account = farm_run(environment, out, len(CATALOGUE), *names)
    return account, consoles(account, out)


def test_every_scenario_passes(all_scenarios: tuple[dict[str, Any], dict[str, str]]) -> None:
    account, _ = all_scenarios
    assert len(account["cycles"]) == len(CATALOGUE)
    wrong = {
        cycle["scenario"]: cycle["result"]["why"]
        for cycle in account["cycles"]
        if cycle["result"]["verdict"] not in ("PASS", "SKIP")
    }
    assert wrong == {}
    assert any(cycle["result"]["verdict"] == "PASS" for cycle in account["cycles"])


def test_no_scenario_leaves_a_splat(all_scenarios: tuple[dict[str, Any], dict[str, str]]) -> None:
    _, seen = all_scenarios
    prompt = PROMPT.decode().strip()
    found = {name: splats(beside_the_scenario(text, prompt)) for name, text in seen.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_kernel_does_look_for_mistakes(
    all_scenarios: tuple[dict[str, Any], dict[str, str]],
) -> None:
    _, seen = all_scenarios
    first = next(iter(seen.values()))
    assert "KernelAddressSanitizer initialized" in first
    assert "RCU lockdep checking is enabled" in first


def test_a_planted_mistake_is_a_splat(environment: dict[str, str], tmp_path: Path) -> None:
    planted = "; ".join(f"echo {one} >/sys/kernel/debug/provoke-crash/DIRECT" for one in MISTAKES)
    arguments = ["--scenario", "sysrq-c", "--before-panic", f"{planted}; {ASK_THE_BOARD}"]
    account = farm_run(environment, tmp_path, 1, *arguments)
    (text,) = consoles(account, tmp_path).values()
    found = splats(beside_the_scenario(text, PROMPT.decode().strip()))
    assert any("BUG: KASAN" in line for line in found)
    assert any("WARNING: " in line for line in found)


def test_the_kunit_cases_pass_without_a_splat(environment: dict[str, str]) -> None:
    up = [FARM, "virtual", "up", "--name", "kunit", "--variant", "debug", "--json"]
    up += ["--append", "kunit.enable=1"]
    told = subprocess.run(up, env=environment, capture_output=True, text=True, check=True)
    console = Console(json.loads(told.stdout)["serial_url"])
    subprocess.run([*up, "--on"], env=environment, capture_output=True, check=True)
    text = console.expect(PROMPT, BOOT_S).decode(errors="replace")
    assert "ok 1 - " in text or "ok 1 " in text, text[-2000:]
    assert [line for line in text.splitlines() if "not ok" in line] == []
    assert splats(text) == []
