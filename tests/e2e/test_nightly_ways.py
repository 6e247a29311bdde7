"""A night's other ways: a kernel that was built before, flashed by EDL, on a board set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.build import bootimage, cache
from farm.history import BoardState, open_history
from tests.e2e.conftest import Board
from tests.e2e.test_nightly import Night

PLAN = """\
name: a board on trial
boards: [{board}]
kernels: [{{name: before, boot_image: boot.img, vmlinux: {vmlinux}}}]
scenarios: [sysrq-c, lkdtm-bug]
flash: edl
set_aside: {{after: 3, training: 2, scenario: lkdtm-panic}}
"""


@pytest.mark.virtual
def test_a_board_set_aside_is_trained_with_a_prebuilt_kernel_flashed_by_edl(
    make_board: Callable[..., Board], tmp_path: Path
) -> None:
    board = make_board("trial")
    made = cache.root() / "virtual" / "current"
    names = ("Image", "initramfs.cpio.gz", "virtual.dtb")
    kernel, initramfs, tree = ((made / name).read_bytes() for name in names)
    (tmp_path / "boot.img").write_bytes(bootimage.pack(kernel, initramfs, tree))
    plan = PLAN.format(board=board.lg_env, vmlinux=made.resolve() / "vmlinux")
    night = Night(tmp_path, plan, board.environment)
    with open_history(out=night.out) as history:
        history.set_board_state(BoardState("trial", set_aside="3 bench failures in a row"))
    code, account = night.end(timeout_s=500.0)
    assert code == 0, night.log.read_text()
    built = json.loads((made / "build.json").read_text())["build_id"]
    assert [(one["name"], one["build_id"]) for one in account["kernels"]] == [("before", built)]
    cycles = [
        (one["purpose"], one["cell"]["scenario"], one["verdict"]) for one in account["cycles"]
    ]
    assert cycles == [
        ("training", "lkdtm-panic", "PASS"),
        ("training", "lkdtm-panic", "PASS"),
        ("plan", "sysrq-c", "PASS"),
        ("plan", "lkdtm-bug", "PASS"),
    ]
    assert [one["counts"] for one in account["cycles"]] == [False, False, True, True]
    assert account["boards"][0]["set_aside"] == ""
    assert account["holes"] == []
    # It runs what was flashed, by the tool that the plan names, and says so itself.
    for name in {one["run"] for one in account["cycles"]}:
        run = json.loads((night.folder / name / "run.json").read_text())
        assert run["build_id"] == built
    with open_history(out=night.out) as history:
        assert history.board_states()["trial"].set_aside == ""
