"""Dumps of a kernel's memory, in all the forms in which they come, lead to the same regions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.decode.findings import Given, recognise
from farm.decode.output import write_elf
from farm.decode.vmcore import crash_option
from farm.formats.ramoops import RamoopsSizes
from farm.formats.region import pstore_files
from tests.formats.pstore_machine import (
    RAM_PADDR,
    PstoreMachine,
    machine_of_this_build,
)

KIB = 1024
SIZES = RamoopsSizes(
    mem_size_bytes=2048 * KIB,
    record_size_bytes=64 * KIB,
    panicdump_size_bytes=512 * KIB,
    console_size_bytes=128 * KIB,
    pmsg_size_bytes=128 * KIB,
    ecc_size_bytes=16,
)
DEVICES = "b16,b24+r256,c1000,b100+r64+c33,b65536+b5000"
# Debian's crash of arm64, with what it needs and an emulator for it; unpacked by `make test`. The
# variable names a folder with a newer one, which `make crash` unpacks.
NEWER_CRASH = os.environ.get("PANIC_FARM_CRASH", "")
CRASH = Path(NEWER_CRASH or Path(__file__).resolve().parents[2] / ".venv" / "crash-bookworm")

pytestmark = pytest.mark.virtual


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> PstoreMachine:
    return machine_of_this_build(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def ram(machine: PstoreMachine) -> Iterator[Path]:
    """The memory of a kernel that was moved by KASLR, and that panicked on its last CPU."""
    file = machine.panic(SIZES, 0, f"panicdump_sample.devices={DEVICES}", cpu=3)
    yield file
    file.unlink()


def digests(paths: list[Path], **given: object) -> dict[str, str]:
    """Name and content of every region of a dump."""
    found = recognise(paths, Given(**given))  # type: ignore[arg-type]
    assert found.memory is not None
    assert found.memory.table is not None
    return {
        f"{one.entry.device} {one.entry.region}": f"{hash(one.data)} {one.missing}"
        for one in found.memory.regions
        if one.data is not None
    }


@pytest.fixture(scope="module")
def wanted(ram: Path) -> dict[str, str]:
    found = digests([ram], base_paddr=RAM_PADDR)
    assert len(found) == 7
    return found


def test_the_records_hold_what_memory_holds(ram: Path) -> None:
    found = recognise([ram], Given(base_paddr=RAM_PADDR))
    assert found.memory is not None
    saved = {
        (item.record.device, region.name): region.data
        for item in found.records
        if item.record
        for region in item.record.regions
    }
    compared = 0
    for one in found.memory.regions:
        if one.data is not None and one.entry.driver == "panicdump-sample":
            assert saved[one.entry.device, one.entry.region] == one.data
            compared += len(one.data)
    assert compared == 16 + 24 + 256 + 100 + 64 + 65536 + 5000


def test_where_memory_begins_is_found_out(ram: Path, wanted: dict[str, str]) -> None:
    assert digests([ram]) == wanted


@pytest.mark.parametrize("way", ["symbol in vmlinux", "symbol in VMCOREINFO", "magic"])
def test_three_ways_lead_to_the_table(
    way: str, ram: Path, machine: PstoreMachine, wanted: dict[str, str], tmp_path: Path
) -> None:
    given = {"base_paddr": RAM_PADDR}
    if way == "symbol in vmlinux":
        given["vmlinux"] = machine.product / "vmlinux"  # type: ignore[assignment]
    if way != "symbol in VMCOREINFO":
        # Without VMCOREINFO, the kernel is found by its build id, and the table by its magic.
        copy = tmp_path / "ram"
        data = ram.read_bytes().replace(b"OSRELEASE=", b"osrelease=")
        copy.write_bytes(data)
        ram = copy
    found = recognise([ram], Given(**given))  # type: ignore[arg-type]
    assert found.memory is not None
    assert found.memory.table is not None
    assert found.memory.table.how == way
    assert digests([ram], **given) == wanted


def test_page_tables_lead_to_what_the_table_says(ram: Path) -> None:
    found = recognise([ram], Given(base_paddr=RAM_PADDR))
    assert found.memory is not None
    translation = found.memory.kernel.translation(found.memory.memory)
    assert translation is not None
    checked = 0
    for one in found.memory.regions:
        if one.entry.pa is not None and one.entry.va:
            assert translation.translate(one.entry.va) == one.entry.pa
            checked += 1
    assert checked >= 9
    assert translation.translate(0x1000) is None
    assert translation.translate(0xFFFF_0000_0000_0000) is None


def test_a_folder_of_regions(ram: Path, wanted: dict[str, str], tmp_path: Path) -> None:
    data = ram.read_bytes()
    half = len(data) // 2
    (tmp_path / "DDRCS0_0.BIN").write_bytes(data[:half])
    (tmp_path / "DDRCS0_1.BIN").write_bytes(data[half:])
    (tmp_path / "load.cmm").write_text(
        f"d.load.binary DDRCS0_0.BIN {RAM_PADDR:#x} /noclear\n"
        f"if OS.FILE(DDRCS0_1.BIN)\n(\n  d.load.binary DDRCS0_1.BIN "
        f"{RAM_PADDR + half:#x} /noclear\n)\n"
    )
    assert digests([tmp_path]) == wanted
    (tmp_path / "load.cmm").unlink()
    account = [
        {"file": "DDRCS0_0.BIN", "base": RAM_PADDR},
        {"file": "DDRCS0_1.BIN", "base": RAM_PADDR + half},
    ]
    (tmp_path / "ramdump.json").write_text(json.dumps({"files": account}))
    assert digests([tmp_path]) == wanted
    (tmp_path / "ramdump.json").unlink()
    places = (("DDRCS0_0.BIN", RAM_PADDR), ("DDRCS0_1.BIN", RAM_PADDR + half))
    assert digests([tmp_path], places=places) == wanted


@pytest.mark.parametrize("form", ["elf", "kdump-zlib"])
def test_what_qemu_dumps(
    form: str, ram: Path, machine: PstoreMachine, wanted: dict[str, str], tmp_path: Path
) -> None:
    """QEMU writes both forms by itself, from a machine with that memory."""
    out = tmp_path / "dump"
    arguments = {"paging": False, "protocol": f"file:{out}"}
    if form != "elf":
        arguments["format"] = form
    commands = (
        {"execute": "qmp_capabilities"},
        {"execute": "dump-guest-memory", "arguments": arguments},
        {"execute": "quit"},
    )
    copy = tmp_path / "ram"
    shutil.copyfile(ram, copy)
    size = ram.stat().st_size
    done = subprocess.run(
        [
            *("qemu-system-aarch64", "-nodefaults", "-display", "none", "-S"),
            *("-machine", "virt,gic-version=3,memory-backend=dram", "-cpu", "cortex-a57"),
            *("-m", str(size >> 20), "-qmp", "stdio"),
            *("-object", f"memory-backend-file,id=dram,size={size},mem-path={copy},share=on"),
        ],
        input="".join(json.dumps(one) + "\n" for one in commands),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert out.exists(), done.stdout + done.stderr
    assert digests([out]) == wanted

    # With registers of its own, its memory stays what it is: only CPU 0 becomes online.
    found, vmcore = recognise([out]), tmp_path / "vmcore"
    assert "registers of CPU 0" in write_elf(found, vmcore)
    again = recognise([vmcore])
    assert found.memory is not None
    assert again.memory is not None
    differ = 0
    for paddr in range(RAM_PADDR, RAM_PADDR + size, KIB * KIB):
        before = found.memory.memory.read(paddr, KIB * KIB)
        after = again.memory.memory.read(paddr, KIB * KIB)
        assert before is not None
        assert after is not None
        differ += sum(map(int.__ne__, before, after)) if before != after else 0
    assert differ <= 1


@pytest.fixture(scope="module")
def vmcore(ram: Path, machine: PstoreMachine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vmcore") / "vmcore"
    found = recognise([ram], Given(base_paddr=RAM_PADDR, vmlinux=machine.product / "vmlinux"))
    assert "registers of CPU 0, 1, 2, 3" in write_elf(found, out)
    return out


def test_the_vmcore_is_a_dump_again(vmcore: Path, wanted: dict[str, str]) -> None:
    assert digests([vmcore]) == wanted


def test_drgn_lists_tasks_regions_and_the_backtrace(
    vmcore: Path, machine: PstoreMachine, tmp_path: Path
) -> None:
    script = tmp_path / "look.py"
    script.write_text(
        "from drgn.helpers.linux.pid import for_each_task\n"
        "print('TASKS', [t.comm.string_().decode() for t in for_each_task(prog)])\n"
        "print('TRACE', prog.crashed_thread().stack_trace())\n"
        "import sys; sys.path.insert(0, 'farm/decode')\n"
        "from drgn_panicdump import print_regions\n"
        "print_regions(prog)\n"
    )
    drgn = Path(sys.executable).parent / "drgn"
    done = subprocess.run(
        [drgn, "-q", "-c", vmcore, "-s", machine.product / "vmlinux", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "DEBUGINFOD_URLS": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "'init'" in done.stdout
    assert "'kthreadd'" in done.stdout
    trace = done.stdout.partition("TRACE")[2]
    for function in (" panic ", "vfs_write", "el0_svc"):
        assert function in trace
    assert "panicdump-sample.3" in trace


def test_crash_shows_the_backtrace(vmcore: Path, machine: PstoreMachine, tmp_path: Path) -> None:
    memory = recognise([vmcore]).memory
    assert memory is not None
    done = subprocess.run(
        [
            *(CRASH / "usr/bin/qemu-aarch64-static", "-L", CRASH, CRASH / "usr/bin/crash", "-s"),
            *crash_option(memory.kernel).split(),
            *(machine.product / "vmlinux", vmcore),
        ],
        input="bt\nforeach set\nset -c 0\nbt\nquit\n",
        capture_output=True,
        text=True,
        timeout=1800 if NEWER_CRASH else 300,
        check=False,
        # Of its own folder: crash reads a .crashrc, and leaves files where it is.
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    functions = re.findall(r"#\d+ \[\w+\] (\w+) at", done.stdout)
    wanted = ["panic", "sysrq_handle_crash", "write_sysrq_trigger", "vfs_write", "el0_svc"]
    assert [name for name in functions if name in wanted] == wanted
    assert functions.index("el0_svc") < functions.index("do_idle")  # of the CPU that was stopped
    # Of the tasks, crash 8.0.2 finds those that run; it is older than these kernels.
    tasks = {"swapper/0", "sh"} | ({"init", "kthreadd", "rcu_sched"} if NEWER_CRASH else set())
    assert tasks <= set(re.findall('COMMAND: "(.*)"', done.stdout))


def test_files_are_those_that_the_kernel_shows(ram: Path, machine: PstoreMachine) -> None:
    """The same kernel, booted with what the panic left: every file of pstorefs, byte by byte."""
    found = recognise([ram], Given(base_paddr=RAM_PADDR))
    (region,) = found.ramoops
    kernel = machine.read(SIZES, region.data)
    ours = {file.name: file.data for file in pstore_files(region.region) if not file.hidden}
    assert {"dmesg-ramoops-0", "console-ramoops-0", "panicdump-ramoops-3"} <= set(kernel)
    assert sorted(ours) == sorted(kernel)
    assert all(ours[name] == data for name, data in kernel.items())
