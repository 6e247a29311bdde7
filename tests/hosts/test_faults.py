"""A host, or the way to it, is lost in a cycle: no byte is lost, or the host is named."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.namespaces import Farm, Host
from tests.waiting import wait_until

pytestmark = pytest.mark.virtual

_RUN_DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with Farm() as farm:
        farm.add_coordinator()
        for number in (1, 2):
            host = farm.add_host(f"h{number}", boards=[f"board-{number}"])
            farm.add_place(f"board-{number}", host.name)
        yield farm


class Running:
    """A `farm run` on a place, in the background."""

    def __init__(self, farm: Farm, place: str, name: str, channels: str, *more: str) -> None:
        self.out = farm.folder / name
        self.log = farm.folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] = farm.start(
            *("farm", "run", "--place", place, "--scenario", "sysrq-c"),
            *("--channel", channels, "--out", str(self.out), *more),
            log=self.log,
        )

    def wait_stage(self, stage: str) -> None:
        """Wait until the run says that it is there."""

        def there() -> bool:
            said = self.log.read_text()
            assert self.process.poll() is None, said
            return stage in said

        wait_until(there, f"the stage {stage}", _RUN_DEADLINE_S)

    def end(self) -> list[dict[str, Any]]:
        """The cycles of the run, once it has ended."""
        self.process.wait(_RUN_DEADLINE_S)
        (file,) = self.out.glob("*/run.json")
        return list(json.loads(file.read_text())["cycles"])


def dram(host: Host, board: str) -> Path:
    tag = hashlib.sha256(str(host.folder / "state" / board).encode()).hexdigest()[:8]
    return Path(f"/dev/shm/panic-farm-{board}-{tag}.dram")


def test_a_dump_goes_on_when_every_ssh_connection_is_killed(farm: Farm) -> None:
    host = farm.hosts["h1"]
    run = Running(farm, "board-1", "ssh-dies", "pstorefs,ramdump")

    def begun() -> bool:
        assert run.process.poll() is None, run.log.read_text()
        parts = list(run.out.rglob("*.part"))
        return bool(parts) and parts[0].stat().st_size > 64 << 20

    wait_until(begun, "the dump", _RUN_DEADLINE_S)
    with dram(host, "board-1").open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    host.end_ssh()
    (cycle,) = run.end()
    assert cycle["result"]["verdict"] == "PASS", cycle["result"]["why"]
    captures = [one for one in cycle["input"]["captures"] if one["channel"] == "ramdump"]
    assert wanted in [one["sha256"] for one in captures]
    assert "board-1" not in farm.run("labgrid-client", "who").stdout.split()


def test_a_cycle_whose_ssh_dies_is_an_error_and_the_next_one_connects_anew(farm: Farm) -> None:
    run = Running(farm, "board-1", "ssh-again", "pstorefs", "--repeat", "2")
    run.wait_stage("arm")
    farm.hosts["h1"].end_ssh()
    first, second = run.end()
    assert first["result"]["verdict"] == "ERROR"
    assert first["input"]["fault"]["part"] in ("serial", "power")
    assert second["result"]["verdict"] == "PASS", second["result"]["why"]


@pytest.mark.parametrize("how", ["killed", "cut"])
def test_a_host_that_dies_in_a_cycle_is_an_error_that_names_it(farm: Farm, how: str) -> None:
    host = farm.hosts["h2"]
    run = Running(farm, "board-2", f"host-{how}", "pstorefs,sahara")
    run.wait_stage("arm")
    lose: dict[str, Callable[[], None]] = {"killed": host.kill, "cut": host.cut}
    lose[how]()
    (cycle,) = run.end()
    if how == "killed":
        farm.add_host(host.name, boards=host.boards)
    else:
        host.mend()
    assert cycle["result"]["verdict"] == "ERROR"
    assert cycle["input"]["fault"]["part"] == "host"
    assert "the host h2" in cycle["input"]["fault"]["message"]
    assert "ssh h2 true" in cycle["input"]["fault"]["next_step"]
    assert "board-2" not in farm.run("labgrid-client", "who").stdout.split()
