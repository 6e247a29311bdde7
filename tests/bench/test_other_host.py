"""The board's USB cable ends on another host: everything as on this one, over labgrid's ssh."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from farm.bench import bootmodes
from farm.bench.environment import Bench, open_bench
from farm.bench.strategy import Status
from farm.errors import BenchError
from farm.virtual.devicetree import RAM_BASE_PADDR
from farm.virtual.layout import BoardDir
from farm.virtual.usb_bus import own_folder
from tests.bench.ssh_host import SshHost, ssh_host
from tests.bench.virtual_board import environment

pytestmark = pytest.mark.virtual

NAME = "other"
BOOT_B = (64 + 16384) * 4096
MARK = (0x5FDF_F800, 0x1357_9BDF)


@dataclass
class Remote:
    """A bench whose USB is on another host."""

    bench: Bench
    host: SshHost
    folder: Path
    before: str


LEFT = "ls -d /tmp/farm-usb-tool-* 2>/dev/null || true"


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    root = Path(tempfile.mkdtemp(prefix="farm-here-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANIC_FARM_STATE", str(Path(tempfile.mkdtemp(prefix="farm-state-"))))
        lg_env = environment(root, NAME)
        with ssh_host(root, own_folder(NAME)) as host:
            tree = yaml.safe_load(lg_env.read_text())
            tree["targets"]["main"]["resources"]["BoardUsb"]["host"] = host.name
            # Of a real board's host nothing of the farm's is asked: its python3 sees the bus.
            tree["targets"]["main"]["drivers"]["UsbBoot"] = {}
            lg_env.write_text(yaml.safe_dump(tree, sort_keys=False))
            with open_bench(lg_env) as bench:
                yield Remote(bench, host, root, host.run(LEFT))
        shutil.rmtree(os.environ["PANIC_FARM_STATE"])
    shutil.rmtree(root, ignore_errors=True)


def memory(paddr: int, size: int) -> bytes:
    dram = next(one for one in BoardDir.of(NAME).dram_candidates() if one.exists())
    with dram.open("rb") as file:
        file.seek(paddr - RAM_BASE_PADDR)
        return file.read(size)


def on_disk(size: int) -> bytes:
    with (BoardDir.of(NAME).root / "disk").open("rb") as file:
        file.seek(BOOT_B)
        return file.read(size)


def agents(host: SshHost) -> list[str]:
    return host.run("pgrep -f labgrid_agen[t]_ || true").split()


def test_the_other_host_has_neither_farm_nor_files_of_ours(remote: Remote) -> None:
    assert "No module named 'farm'" in remote.host.run("python3 -c 'import farm' 2>&1 || true")
    assert remote.host.run(f"ls {remote.folder}") == ""


def test_a_full_dump_comes_back_bit_identical_with_progress(remote: Remote) -> None:
    strategy = remote.bench.strategy
    strategy.transition(Status.crash)
    told: list[tuple[int, int]] = []
    strategy.progress = lambda done, total, _: told.append((done, total))
    said = strategy.dump(remote.folder / "dump")
    dram = next(one for one in BoardDir.of(NAME).dram_candidates() if one.exists())
    with dram.open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    assert said["files"][0]["sha256"] == wanted
    with (remote.folder / "dump" / said["files"][0]["file"]).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == wanted
    assert len(told) > 100
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_just_some_addresses_come_back(remote: Remote) -> None:
    remote.bench.strategy.transition(Status.crash)
    target = remote.folder / "some"
    got = remote.bench.strategy.driver("crash").read(RAM_BASE_PADDR + 12345, 3 << 20, target)
    assert target.read_bytes() == memory(RAM_BASE_PADDR + 12345, 3 << 20)
    assert got.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert got.received_bytes < 1.01 * (3 << 20)


def test_a_dump_goes_on_when_its_connection_breaks_in_the_middle(remote: Remote) -> None:
    strategy, usb = remote.bench.strategy, remote.bench.strategy.usb
    strategy.transition(Status.crash)
    folder = remote.folder / "broken"
    told: list[int] = []
    killed: list[int] = []

    def progress(done: int, total: int, words: str) -> None:
        told.append(done)
        if done > 64 << 20 and not killed:
            killed.append(len(told))
            os.kill(usb._agent.agent.pid, signal.SIGKILL)

    strategy.progress = progress
    said = strategy.dump(folder)
    strategy.progress = None
    # Not from the beginning, and not with what the broken connection may have garbled.
    assert min(told[killed[0] :]) > 60 << 20
    assert not list(folder.glob("earlier-*"))
    dram = next(one for one in BoardDir.of(NAME).dram_candidates() if one.exists())
    with dram.open("rb") as file:
        assert said["files"][0]["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    usb._drop_agent()
    end = time.monotonic() + 30
    while agents(remote.host):
        assert time.monotonic() < end, "the agent outlives its host"
        time.sleep(0.1)


def test_a_dump_whose_host_does_not_come_back_is_an_error_and_kept(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, usb = remote.bench.strategy, remote.bench.strategy.usb
    strategy.transition(Status.crash)
    folder = remote.folder / "gone"
    monkeypatch.setattr(bootmodes, "_HOST_BACK_DEADLINE_S", 0.0)

    def progress(done: int, total: int, words: str) -> None:
        if done > 64 << 20:
            monkeypatch.setattr(usb.usb, "host", "nowhere.invalid")
            os.kill(usb._agent.agent.pid, signal.SIGKILL)

    strategy.progress = progress
    with pytest.raises(BenchError, match="the agent does not start"):
        strategy.dump(folder)
    strategy.progress = None
    assert next(folder.glob("*.part")).stat().st_size > 60 << 20
    monkeypatch.setattr(usb.usb, "host", remote.host.name)


@pytest.mark.parametrize("tool", ["qdl", "builtin"])
def test_an_image_is_copied_there_and_flashed_over_edl(remote: Remote, tool: str) -> None:
    strategy = remote.bench.strategy
    strategy.transition(Status.edl)
    edl = strategy.driver("edl")
    edl.tool = tool
    image = remote.folder / f"{tool}.img"
    image.write_bytes(os.urandom((3 << 20) + 77))
    told: list[tuple[int, int, str]] = []
    assert edl.flash("boot_b", image, lambda *one: told.append(one)) == tool
    strategy.force(Status.unknown)
    assert on_disk((3 << 20) + 77) == image.read_bytes()
    if tool == "builtin":
        assert told[-1][0] == told[-1][1] == 2 * image.stat().st_size
        assert {words for _, _, words in told} >= {"reading back"}
    strategy.transition(Status.shell)


def test_a_programmer_there_peeks(remote: Remote) -> None:
    strategy = remote.bench.strategy
    strategy.transition(Status.shell)
    remote.bench.shell.run_script(f"devmem {MARK[0]:#x} 32 {MARK[1]:#x}", 5.0)
    strategy.transition(Status.edl)
    target = remote.folder / "peek"
    strategy.driver("edl").peek(MARK[0] - 512, 4096, target)
    assert target.read_bytes() == memory(MARK[0] - 512, 4096)
    assert MARK[1].to_bytes(4, "little") in target.read_bytes()


def test_fastboot_there_flashes_and_reads(remote: Remote) -> None:
    strategy = remote.bench.strategy
    strategy.transition(Status.fastboot)
    fastboot = strategy.driver("fastboot")
    image = remote.folder / "fastboot.img"
    image.write_bytes(os.urandom(5 << 20))
    words: set[str] = set()
    fastboot.flash("boot_b", image, lambda done, total, said: words.add(said))
    assert on_disk(5 << 20) == image.read_bytes()
    target = remote.folder / "ramoops"
    fastboot.read(0x5FE0_0000, 2 << 20, target)
    assert target.read_bytes() == memory(0x5FE0_0000, 2 << 20)


def test_nothing_is_left_there(remote: Remote) -> None:
    assert set(remote.host.run(LEFT).split()) <= set(remote.before.split())


def test_a_host_that_is_not_there_is_named_with_what_to_do(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb = remote.bench.strategy.driver("usb")
    usb._drop_agent()
    monkeypatch.setattr(usb.usb, "host", "nowhere.invalid")
    with pytest.raises(BenchError, match="the agent does not start") as caught:
        usb.find()
    assert "ssh nowhere.invalid python3" in caught.value.next_step
