"""``farm doctor`` on virtual boards with faults planted in them, and in what is around them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fdt
import pytest
import yaml

from farm.bench.environment import Bench, open_bench
from tests.e2e.conftest import Board

pytestmark = pytest.mark.virtual

PLANTED = """\
echo N > /sys/class/tty/ttyAMA0/console
echo 0 > /proc/sys/kernel/sysrq
date -s @1000000000"""

MakeBoard = Callable[..., Board]


def doctor(
    board: Board, *words: str, lg_env: Path | None = None, **environment: str
) -> tuple[int, dict[str, dict[str, str]]]:
    before, board.environment = board.environment, {**board.environment, **environment}
    try:
        done = board.farm("doctor", "--json", "--lg-env", str(lg_env or board.lg_env), *words)
    finally:
        board.environment = before
    assert done.stdout, done.stderr
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}


def wrong(answers: dict[str, dict[str, str]]) -> set[str]:
    for one in answers.values():
        assert one["remedy"] or one["state"] not in ("wrong", "warning"), one
    return {name for name, one in answers.items() if one["state"] == "wrong"}


def changed(board: Board, change: Callable[[dict[str, Any]], None]) -> Path:
    config = yaml.safe_load(board.lg_env.read_text(encoding="utf-8"))
    change(config["targets"]["main"])
    path = board.lg_env.with_name(f"{board.name}-changed.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def at_shell(board: Board, monkeypatch: pytest.MonkeyPatch, work: Callable[[Bench], None]) -> None:
    """Leave the board at its shell after ``work``."""
    monkeypatch.setenv("PANIC_FARM_STATE", board.environment["PANIC_FARM_STATE"])
    board.up()
    with open_bench(board.lg_env) as bench:
        bench.ensure_shell()
        work(bench)


def devicetree(folder: Path, change: Callable[[Any], None]) -> str:
    """The virtual board's device tree, changed."""
    cache = Path(os.environ.get("PANIC_FARM_CACHE") or Path.home() / ".cache" / "panic-farm")
    tree = fdt.parse_dtb((cache / "virtual/current/virtual.dtb").read_bytes())
    change(tree)
    path = folder / "changed.dtb"
    path.write_bytes(tree.to_dtb())
    return str(path)


def test_a_good_bench_is_found_good_and_left_as_it_was(make_board: MakeBoard) -> None:
    board = make_board("doctor-good")
    code, answers = doctor(board, "--offline")
    assert (code, wrong(answers)) == (0, set())
    assert answers["bench"]["state"] == "not checked"
    board.up()
    code, answers = doctor(board, "--boot", "--channel", "sahara")
    assert (code, wrong(answers)) == (0, set())
    # What `farm run` sees to by itself; and the board has no clock that lasts.
    warnings = {name for name, one in answers.items() if one["state"] == "warning"}
    assert warnings == {"download", "clock"}
    assert board.status()[1]["relay_on"] is False
    code, answers = doctor(board)
    assert answers["board"]["state"] == "not checked"


def test_a_kernel_that_was_started_in_a_wrong_way(make_board: MakeBoard) -> None:
    # More than the region holds.
    devices = ",".join(["b65536"] * 9)
    append = f"panic=0 loglevel=1 panicdump_sample.devices={devices}"
    board = make_board("doctor-cmdline", "--append", append)
    board.up()
    code, answers = doctor(board, "--boot", "--build-id", "00" * 20)
    assert code == 3
    assert wrong(answers) == {"panic", "capacity", "build-id"}
    assert answers["loglevel"]["state"] == "warning"
    assert answers["clock"]["state"] == "warning"


def test_a_device_tree_without_a_zone_for_panicdump(make_board: MakeBoard, tmp_path: Path) -> None:
    def change(tree: Any) -> None:
        nodes = tree.get_node("/reserved-memory").nodes
        next(one for one in nodes if one.name.startswith("ramoops")).remove_property(
            "panicdump-size"
        )

    board = make_board("doctor-nozone", "--dtb", devicetree(tmp_path, change))
    board.up()
    code, answers = doctor(board, "--boot")
    assert code == 3
    assert {"ramoops", "panicdump"} <= wrong(answers)


def test_what_an_earlier_panic_and_somebodys_hands_left(
    make_board: MakeBoard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def change(tree: Any) -> None:
        # With sysrq_always_enabled the mask cannot be 0.
        tree.get_node("/chosen").set_property("bootargs", "console=ttyAMA0 panic=1 oops=panic")

    board = make_board("doctor-left", "--dtb", devicetree(tmp_path, change))

    def work(bench: Bench) -> None:
        bench.console.mark()
        bench.console.write(b"echo c > /proc/sysrq-trigger\n")
        bench.shell.fresh_boot()
        bench.shell.wait_prompt(60)
        bench.shell.run_script(PLANTED, 10)

    at_shell(board, monkeypatch, work)
    code, answers = doctor(board)
    assert code == 3
    assert wrong(answers) == {"console", "sysrq"}
    assert answers["clock"]["state"] == "warning"
    assert answers["records"]["state"] == "warning"


def test_a_bench_with_faults_around_the_board(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board("doctor-around")
    board.up()
    assert board.farm("virtual", "press", "fastboot", "on", "--name", board.name).returncode == 0
    assert board.farm(*board.up_arguments, "--on").returncode == 0
    code, answers = doctor(board)
    assert answers["fastboot-id"]["state"] == "ok"

    def spoil(target: dict[str, Any]) -> None:
        target["resources"]["BoardUsb"]["serial"] = "12345678"
        target["resources"]["NetworkSerialPort"]["protocol"] = "raw"
        target["drivers"]["Edl"]["programmer"] = "nowhere.elf"

    code, answers = doctor(
        board, "--least-free", "1000000000", lg_env=changed(board, spoil), PATH=str(tmp_path)
    )
    assert code == 3
    assert {"tools", "break", "programmer", "disk", "fastboot-id"} <= wrong(answers)

    def unreachable(target: dict[str, Any]) -> None:
        target["resources"]["NetworkPowerPort"]["host"] = "http://localhost:9/{index}/{value}"

    code, answers = doctor(board, lg_env=changed(board, unreachable))
    assert "power" in wrong(answers)
    board.kill()
    code, answers = doctor(board)
    assert (code, "bench" in wrong(answers)) == (3, True)


def test_an_environment_file_with_an_error_ends_with_2(make_board: MakeBoard) -> None:
    board = make_board("doctor-yaml")
    path = changed(board, lambda target: target["options"].update(bord=1))
    done = board.farm("doctor", "--lg-env", str(path))
    assert done.returncode == 2
    assert "targets.main.options.bord: there is no such key; did you mean `board`?" in done.stderr
