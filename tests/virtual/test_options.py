from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.errors import UsageError
from farm.virtual import lifecycle
from farm.virtual.layout import BoardDir, host_boot_id, state_root
from farm.virtual.machine import MachineFiles, command_line, find_qemu
from farm.virtual.options import BoardOptions, checked, default_image_dir, resolve_images
from farm.virtual.status import BoardStatus, Presence
from tests.virtual.bench import farm_virtual


def options(**more: object) -> BoardOptions:
    paths = dict.fromkeys(("kernel", "initrd", "dtb"), Path("/images/x"))
    return checked(BoardOptions, **({"name": "b"} | paths | more))


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a" * 49, "a\n"])
def test_a_name_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(UsageError, match="no name for a board"):
        options(name=name)
    with pytest.raises(UsageError, match="no name for a board"):
        BoardDir.of(name)


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(UsageError, match="--serial-port 70000"):
        options(serial_port=70000)


@pytest.mark.parametrize(
    ("more", "first", "count"),
    [
        ({"name": "virtual"}, (20817, 20818), 1),
        ({"name": "other"}, (20841, 20842), 200),
        ({"serial_port": 5000}, (5000, 5001), 1),
        ({"power_port": 5000}, (4999, 5000), 1),
        ({"serial_port": 5000, "power_port": 6000}, (5000, 6000), 1),
    ],
)
def test_ports(more: dict[str, object], first: tuple[int, int], count: int) -> None:
    candidates = options(**more).port_candidates()
    assert candidates[0] == first
    assert len(candidates) == count


def test_differences_name_option_and_values_but_not_chosen_ports() -> None:
    running = options(serial_port=20819, power_port=20820)
    assert options().differences(running) == []
    assert options(baud=9600, serial_port=1).differences(running) == [
        "serial_port 1, running with 20819",
        "baud 9600, running with None",
    ]


def test_images_are_found_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_FARM_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="farm build"):
        default_image_dir()
    folder = tmp_path / "virtual" / "123"
    folder.mkdir(parents=True)
    (folder.parent / "current").symlink_to("123")
    for name in ("Image", "virtual.dtb"):
        (folder / name).touch()
    with pytest.raises(UsageError, match="--initrd: there is no file"):
        resolve_images(None, None, None, None)
    found = resolve_images(None, None, folder / "Image", None)
    assert found["dtb"] == folder / "virtual.dtb"
    assert found["initrd"] == folder / "Image"


def test_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PANIC_FARM_STATE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert state_root() == tmp_path / "panic-farm"
    monkeypatch.setenv("PANIC_FARM_STATE", str(tmp_path / "s"))
    assert state_root() == tmp_path / "s"


def test_a_missing_qemu_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="qemu-system-arm"):
        find_qemu()


def test_a_comma_in_a_path_is_no_option_of_qemu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    files = MachineFiles(Path("/a,share=off/dram"), Path("/d"), Path("/s"), Path("/l"))
    words = command_line(options(), files, 7, paused=True)
    assert words[0] == str(qemu)
    assert any("mem-path=/a,,share=off/dram,share=on" in word for word in words)
    assert words[-1] == "-S"


def test_a_state_left_behind_is_lost_only_on_the_same_boot_of_the_host(
    state_folder: Path,
) -> None:
    folder = state_folder / "b"
    folder.mkdir(parents=True)
    left = BoardStatus(name="b", state=Presence.UP, host_boot_id=host_boot_id())
    (folder / "state.json").write_text(left.model_dump_json())
    assert lifecycle.status("b").state is Presence.LOST
    (folder / "state.json").write_text(
        left.model_copy(update={"host_boot_id": "another"}).model_dump_json()
    )
    assert lifecycle.status("b").state is Presence.DOWN
    (folder / "state.json").write_text("{")
    assert lifecycle.status("b").state is Presence.DOWN


def test_the_status_tells_the_bench_how_to_reach_the_board() -> None:
    board = BoardStatus(name="b", state=Presence.UP, serial_port=1, power_port=2)
    said = json.loads(board.model_dump_json())
    assert said["serial_url"] == "rfc2217://localhost:1"
    assert said["power_host"] == "http://localhost:2/power/{index}/{value}"
    assert BoardStatus.model_validate_json(board.model_dump_json()) == board


def test_down_of_what_never_was_is_no_error(state_folder: Path) -> None:
    assert not lifecycle.down("b")
    done = farm_virtual("down", "--name", "b", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"b": False})
    assert lifecycle.statuses() == []
