"""Unmodified programs against the boot programs: fastboot, qdl, and libusb through pyusb."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farm.virtual.bootimage import factory_image
from farm.virtual.layout import BoardDir
from farm.virtual.options import default_image_dir
from tests.virtual.bench import MakeBoard, TestBoard, farm_virtual_command

pytestmark = pytest.mark.virtual

PROGRAMMER = Path(__file__).resolve().parents[2] / "devices" / "virtual-programmer.elf"
TOOL_DEADLINE_S = 60.0


def seen(board: TestBoard | None, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees one board, or all."""
    named = [] if board is None else ["--name", board.name]
    return subprocess.run(
        farm_virtual_command("exec", *named, "--", *command),
        capture_output=True,
        text=True,
        timeout=TOOL_DEADLINE_S,
        check=False,
    )


def fastboot(board: TestBoard, *words: str) -> str:
    done = seen(board, "fastboot", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def wait_condition(board: TestBoard, condition: str, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while board.status()["condition"] != condition:
        assert time.monotonic() < end, board.status()


def held(make_board: MakeBoard, name: str, button: str, *options: str) -> TestBoard:
    """A board that stops in its bootloader or boot ROM."""
    board = make_board(name, *options)
    assert board.run("press", button, "on").returncode == 0
    assert board.run("up", "--on", *options).returncode == 0
    assert board.run("press", button, "off").returncode == 0
    wait_condition(board, button)
    return board


def test_fastboot_lists_asks_flashes_and_boots(make_board: MakeBoard, tmp_path: Path) -> None:
    board = held(make_board, "fb", "fastboot")
    serial = board.status()["usb_serial"]
    assert f"{serial}\t" in fastboot(board, "devices").replace("  ", "\t")
    told = fastboot(board, "getvar", "all")
    assert f"serialno:{serial}" in told
    assert "current-slot:a" in told
    images = default_image_dir()
    parts = [(images / one).read_bytes() for one in ("Image", "initramfs.cpio.gz", "virtual.dtb")]
    image = tmp_path / "boot.img"
    image.write_bytes(factory_image(*parts))
    fastboot(board, "flash", "boot_b", str(image))
    disk = BoardDir.of(board.name).root / "disk"
    with disk.open("rb") as file:
        file.seek((64 + 16384) * 4096)
        assert file.read(len(image.read_bytes())) == image.read_bytes()
    fastboot(board, "set_active", "b")
    assert "current-slot: b" in fastboot(board, "getvar", "current-slot")
    fastboot(board, "reboot")
    wait_condition(board, "running")
    console = board.console()
    console.reach_prompt()
    assert "slot_suffix=_b" in console.command("cat /proc/cmdline")


def test_an_image_larger_than_the_bootloader_takes_comes_in_sparse_pieces(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = held(make_board, "sparse", "fastboot")
    image = tmp_path / "big.img"
    image.write_bytes(os.urandom(40 << 20))
    said = fastboot(board, "flash", "boot_b", str(image))
    assert "1/2" in said
    with (BoardDir.of(board.name).root / "disk").open("rb") as file:
        file.seek((64 + 16384) * 4096)
        assert (
            hashlib.sha256(file.read(40 << 20)).digest()
            == hashlib.sha256(image.read_bytes()).digest()
        )


def test_a_slot_that_holds_nothing_is_given_up_for_the_other(make_board: MakeBoard) -> None:
    board = held(make_board, "giveup", "fastboot")
    fastboot(board, "set_active", "b")
    fastboot(board, "reboot")
    wait_condition(board, "running")
    console = board.console()
    console.reach_prompt()
    assert "slot_suffix=_a" in console.command("cat /proc/cmdline")


def test_a_kernel_is_booted_without_flashing_it(make_board: MakeBoard, tmp_path: Path) -> None:
    board = held(make_board, "ram", "fastboot")
    fastboot(board, "erase", "boot_a")
    images = default_image_dir()
    made = subprocess.run(
        [
            *("mkbootimg", "--kernel", str(images / "Image"), "--header_version", "2"),
            *("--ramdisk", str(images / "initramfs.cpio.gz"), "--dtb", str(images / "virtual.dtb")),
            *("--cmdline", "made.by=mkbootimg", "--pagesize", "4096", "-o", str(tmp_path / "b")),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    fastboot(board, "boot", str(tmp_path / "b"))
    wait_condition(board, "running")
    console = board.console()
    console.reach_prompt()
    assert "made.by=mkbootimg" in console.command("cat /proc/cmdline")


def made_image(tmp_path: Path, version: int) -> Path:
    """A boot image of this version: by Debian's mkbootimg, or, from 3 on, written out here."""
    images = default_image_dir()
    kernel, ramdisk, dtb = (images / one for one in ("Image", "initramfs.cpio.gz", "virtual.dtb"))
    target = tmp_path / f"v{version}.img"
    cmdline = f"made.version={version}"
    if version >= 3:
        # AOSP, bootimg.h, boot_img_hdr_v3 and v4: pages of 4096, a header of 1580 or 1584 bytes.
        head = bytearray(4096)
        head[:8] = b"ANDROID!"
        sizes = kernel.stat().st_size, ramdisk.stat().st_size
        struct.pack_into("<4I", head, 8, *sizes, 0, 1584 if version == 4 else 1580)
        struct.pack_into("<I", head, 40, version)
        head[44 : 44 + len(cmdline)] = cmdline.encode()
        parts = [one.read_bytes() for one in (kernel, ramdisk)]
        target.write_bytes(
            bytes(head) + b"".join(one.ljust(-(-len(one) // 4096) * 4096, b"\0") for one in parts)
        )
        return target
    words = ["--dtb", str(dtb)]
    if version < 2:
        # These have no place for a device tree: it stands behind the kernel.
        both = tmp_path / "Image-dtb"
        both.write_bytes(kernel.read_bytes() + dtb.read_bytes())
        kernel, words = both, []
    made = subprocess.run(
        [
            *("mkbootimg", "--kernel", str(kernel), "--ramdisk", str(ramdisk), *words),
            *("--header_version", str(version), "--cmdline", cmdline),
            *("--pagesize", "2048" if version < 2 else "4096", "-o", str(target)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return target


def test_images_of_every_version_are_flashed_and_boot(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = held(make_board, "versions", "fastboot")
    fastboot(board, "erase", "boot_a")
    console = board.console()
    for version in (0, 1, 2, 3, 4):
        fastboot(board, "flash", "boot_a", str(made_image(tmp_path, version)))
        fastboot(board, "set_active", "a")
        fastboot(board, "reboot")
        console.expect(b"Linux version")
        console.expect(b"root@virtual:~# ")
        assert f"made.version={version}" in console.command("cat /proc/cmdline")
        assert console.command("ls -d /proc/device-tree/reserved-memory/ramoops*") != ""
        console.port.write(b"/bin/reboot bootloader\n")
        wait_condition(board, "fastboot")
    console.port.close()


def test_staged_memory_survives_a_reconnect_over_usb_and_tcp(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = held(make_board, "staged", "fastboot")
    tcp = f"tcp:localhost:{board.status()['fastboot_port']}"
    fastboot(board, "oem", "ramoops", "raw")
    fastboot(board, "get_staged", str(tmp_path / "usb"))
    fastboot(board, "-s", tcp, "get_staged", str(tmp_path / "tcp"))
    assert (tmp_path / "usb").stat().st_size == 2 << 20
    assert (tmp_path / "usb").read_bytes() == (tmp_path / "tcp").read_bytes()


def test_abl_reads_no_memory_and_u_boot_prints_it(make_board: MakeBoard) -> None:
    abl = held(make_board, "abl", "fastboot", "--personality", "abl")
    assert seen(abl, "fastboot", "oem", "ramoops", "raw").returncode != 0
    u_boot = held(make_board, "uboot", "fastboot", "--personality", "u-boot")
    fastboot(u_boot, "oem", "run:md.b 40000000 20")
    assert re.search(r"40000010: (00 ){16}", fastboot(u_boot, "oem", "console"))


def test_qdl_flashes_a_rawprogram_and_patch_set(make_board: MakeBoard, tmp_path: Path) -> None:
    board = held(make_board, "qdl", "edl")
    image = os.urandom(300_000)
    (tmp_path / "part.img").write_bytes(image)
    (tmp_path / "rawprogram0.xml").write_text(
        '<?xml version="1.0" ?><data><program SECTOR_SIZE_IN_BYTES="4096" file_sector_offset="0" '
        'filename="part.img" label="boot_b" num_partition_sectors="16384" '
        'partofsingleimage="false" physical_partition_number="0" readbackverify="false" '
        'size_in_KB="65536.0" sparse="false" start_byte_hex="0x0" start_sector="16448" /></data>'
    )
    (tmp_path / "patch0.xml").write_text(
        '<?xml version="1.0" ?><patches><patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="16" '
        'filename="DISK" physical_partition_number="0" size_in_bytes="4" '
        'start_sector="NUM_DISK_SECTORS-100." value="CRC32(16448,4096)" what="sum"/></patches>'
    )
    files = [str(tmp_path / one) for one in ("rawprogram0.xml", "patch0.xml")]
    done = seen(board, "qdl", "--include", str(tmp_path), str(PROGRAMMER), *files)
    assert done.returncode == 0, done.stderr
    disk = (BoardDir.of(board.name).root / "disk").read_bytes()
    assert disk[16448 * 4096 :][: len(image)] == image
    wait_condition(board, "running")


def gpt_with_open_end(disk: Path) -> tuple[bytes, bytes]:
    """Both copies of a board's GPT as a build delivers them: for a disk of any size.

    The last partition's end and all sums are zero, patches put them in.
    """
    raw = disk.read_bytes()
    last = len(raw) - 4096
    table = bytearray(raw[2 * 4096 : 6 * 4096])
    names = [
        table[at + 56 : at + 128].decode("utf-16-le").rstrip("\0") for at in (0, 128, 256, 384)
    ]
    assert names == ["boot_a", "boot_b", "misc", "userdata"]
    struct.pack_into("<Q", table, 3 * 128 + 40, 0)
    heads = []
    for at in (4096, last):
        head = bytearray(raw[at : at + 4096])
        for place in (16, 88):
            struct.pack_into("<I", head, place, 0)
        heads.append(bytes(head))
    return heads[0] + bytes(table), bytes(table) + heads[1]


def patches_of_gpt() -> str:
    """As the tools that make such sets write them: end of the last partition, then the sums."""
    words = []
    for table, head in (("2", "1"), ("NUM_DISK_SECTORS-5.", "NUM_DISK_SECTORS-1.")):
        for start, offset, size, value in (
            (table, 3 * 128 + 40, 8, "NUM_DISK_SECTORS-64."),
            (head, 88, 4, f"CRC32({table},16384)"),
            (head, 16, 4, "0"),
            (head, 16, 4, f"CRC32({head},92)"),
        ):
            words.append(
                f'<patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="{offset}" filename="DISK" '
                f'physical_partition_number="0" size_in_bytes="{size}" start_sector="{start}" '
                f'value="{value}" what="gpt"/>'
            )
    return f'<?xml version="1.0" ?><patches>{"".join(words)}</patches>'


def test_qdl_makes_an_empty_disk_bootable_by_a_whole_set(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = held(make_board, "qdl-set", "edl")
    disk = BoardDir.of(board.name).root / "disk"
    good = disk.read_bytes()
    main, backup = gpt_with_open_end(disk)
    parts = {
        "gpt_main0.bin": ("0", "PrimaryGPT", "6", bytes(4096) + main),
        "gpt_backup0.bin": ("NUM_DISK_SECTORS-5.", "BackupGPT", "5", backup),
        "boot.img": ("64", "boot_a", "16384", made_image(tmp_path, 2).read_bytes()),
        "misc.img": (str(64 + 2 * 16384), "misc", "256", os.urandom(777_777)),
    }
    words = []
    for name, (start, label, sectors, data) in parts.items():
        (tmp_path / name).write_bytes(data)
        words.append(
            f'<program SECTOR_SIZE_IN_BYTES="4096" file_sector_offset="0" filename="{name}" '
            f'label="{label}" num_partition_sectors="{sectors}" partofsingleimage="false" '
            f'physical_partition_number="0" readbackverify="false" size_in_KB="1" sparse="false" '
            f'start_byte_hex="0x0" start_sector="{start}"/>'
        )
    (tmp_path / "rawprogram0.xml").write_text(
        f'<?xml version="1.0" ?><data>{"".join(words)}</data>'
    )
    (tmp_path / "patch0.xml").write_text(patches_of_gpt())
    with disk.open("r+b") as file:
        file.write(b"\xff" * (128 << 20))
        file.seek(-(5 * 4096), os.SEEK_END)
        file.write(b"\xff" * (5 * 4096))
    files = [str(tmp_path / one) for one in ("rawprogram0.xml", "patch0.xml")]
    done = seen(board, "qdl", "--include", str(tmp_path), str(PROGRAMMER), *files)
    assert done.returncode == 0, done.stderr
    now = disk.read_bytes()
    assert now[4096 : 6 * 4096] == good[4096 : 6 * 4096]
    assert now[-5 * 4096 :] == good[-5 * 4096 :]
    for name, at in (("boot.img", 64), ("misc.img", 64 + 2 * 16384)):
        data = parts[name][3]
        assert now[at * 4096 :][: len(data)] == data
    wait_condition(board, "running")
    console = board.console()
    console.reach_prompt()
    assert "made.version=2" in console.command("cat /proc/cmdline")


READER = """
import hashlib, sys, time
from pathlib import Path
from farm.qualcomm import usb
from farm.qualcomm.identity import Mode
from farm.qualcomm.ramdump import RamDump, read_range, read_table
from farm.qualcomm.sahara import Sahara
serial, folder = sys.argv[1:3]
with usb.open_device(serial=serial, modes=frozenset({Mode.CRASH}), step="test") as transport:
    sahara = Sahara(transport)
    sahara.connect()
    regions = read_table(sahara, sahara.memory_debug())
    if folder == "-":
        digest = hashlib.sha256()
        before = sahara.pipe.received_bytes
        read_range(sahara, regions, int(sys.argv[3], 0), int(sys.argv[4], 0), digest.update)
        print(digest.hexdigest(), sahara.pipe.received_bytes)
    else:
        print(RamDump(Path(folder)).read(sahara, regions)[0].sha256)
    sahara.reset()
"""


def crashed(make_board: MakeBoard, name: str, *options: str) -> TestBoard:
    board = make_board(name, *options)
    assert board.run("up", "--on", *options).returncode == 0
    console = board.console()
    console.reach_prompt()
    console.command("devmem 0x5fdff010 32 0x10")
    console.port.write(b"echo c > /proc/sysrq-trigger\n")
    wait_condition(board, "crash")
    console.port.close()
    return board


def dram_of(board: TestBoard) -> Path:
    return next(one for one in BoardDir.of(board.name).dram_candidates() if one.exists())


def test_a_full_dump_is_the_boards_memory(make_board: MakeBoard, tmp_path: Path) -> None:
    board = crashed(make_board, "dump", "--memory-mib", "512")
    with dram_of(board).open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    serial = board.status()["usb_serial"]
    done = seen(board, sys.executable, "-c", READER, serial, str(tmp_path / "dump"))
    assert done.stdout.strip() == wanted, done.stderr
    wait_condition(board, "running")


def test_a_megabyte_of_a_board_of_four_gigabytes_costs_a_megabyte(make_board: MakeBoard) -> None:
    board = crashed(make_board, "big", "--memory-mib", "4096")
    with dram_of(board).open("rb") as file:
        file.seek(0x1FE0_0000)
        wanted = hashlib.sha256(file.read(1 << 20)).hexdigest()
    serial = board.status()["usb_serial"]
    words = ["-", "0x5fe00000", "0x100000"]
    done = seen(board, sys.executable, "-c", READER, serial, *words)
    digest, received = done.stdout.split()
    assert digest == wanted
    assert int(received) <= 1.01 * (1 << 20)


def test_four_boards_at_once_are_told_apart(make_board: MakeBoard) -> None:
    boards = [held(make_board, f"four{number}", "fastboot") for number in range(3)]
    boards.append(crashed(make_board, "four3"))
    serials = {one.status()["usb_serial"] for one in boards}
    assert len(serials) == 4
    assert len({one.status()["usb_path"] for one in boards}) == 4
    listed = seen(None, "fastboot", "devices").stdout
    for board in boards[:3]:
        serial = board.status()["usb_serial"]
        assert serial in listed
        done = seen(None, "fastboot", "-s", serial, "getvar", "serialno")
        assert f"serialno: {serial}" in done.stderr
    serial = boards[3].status()["usb_serial"]
    words = ["-", "0x5fe00000", "0x1000"]
    done = seen(None, sys.executable, "-c", READER, serial, *words)
    assert done.returncode == 0, done.stderr
    wait_condition(boards[3], "running")
    assert [one.status()["condition"] for one in boards[:3]] == ["fastboot"] * 3


def test_a_cable_that_is_pulled_and_plugged_in_again_gets_another_address(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = crashed(make_board, "pulled")
    board.fault("usb", "replug", "on")
    board.fault("usb", "unplug-at", "3000000")
    serial = board.status()["usb_serial"]
    first = seen(board, sys.executable, "-c", READER, serial, str(tmp_path / "dump"))
    assert "vanished during reading" in first.stderr
    with dram_of(board).open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    time.sleep(0.5)
    second = seen(board, sys.executable, "-c", READER, serial, str(tmp_path / "dump"))
    assert second.stdout.strip() == wanted, second.stderr
