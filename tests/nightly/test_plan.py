"""A plan is checked by line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import UsageError
from farm.nightly.plan import Build, Prebuilt, duration_s, read_plan, schema

SMALLEST = "name: x\nboards: [virtual.yaml]\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_plan(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, SMALLEST))
    assert plan.boards == (tmp_path / "virtual.yaml",)
    assert plan.kernels == (Build(name="default"),)
    assert plan.channels == (("pstorefs",),)
    assert plan.budget is None
    assert len(plan.chosen) > 5


def test_everything_that_a_plan_may_say(tmp_path: Path) -> None:
    text = SMALLEST + (
        "kernels:\n"
        "  - plain\n"
        "  - {name: fix, patches: [a.patch, sub/b.patch], base: '6.12', variant: debug}\n"
        "  - {name: old, boot_image: boot.img, vmlinux: vmlinux}\n"
        "scenarios: [sysrq-c, 'lkdtm-b*']\n"
        "channels: [pstorefs, 'pstorefs, sahara', [fastboot]]\n"
        "repeats: 3\nflash: edl\nretries: 2\nbudget: 1h 30m\n"
        "set_aside: {after: 2, training: 5, scenario: lkdtm-panic}\n"
        "policy: {required: [my-driver]}\n"
    )
    plan = read_plan(write(tmp_path, text))
    assert isinstance(plan.kernels[1], Build)
    assert plan.kernels[1].patches == (tmp_path / "a.patch", tmp_path / "sub" / "b.patch")
    assert isinstance(plan.kernels[2], Prebuilt)
    assert plan.kernels[2].vmlinux == tmp_path / "vmlinux"
    assert plan.channels == (("pstorefs",), ("sahara", "pstorefs"), ("fastboot",))
    assert plan.budget == 5400
    assert plan.set_aside.training == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6h", 21600), ("90m", 5400), ("1h 30m", 5400), ("45s", 45), (30, 30), ("1.5h", 5400)],
)
def test_durations(text: str | int, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("kernels:\n  - plain\n  - {name: a, patchs: []}\n", ":5: kernels.1: there is no key"),
        ("scenarios: [nope]\n", ":3: scenarios.0: there is no scenario 'nope'"),
        ("channels: ['pstorefs,tin can']\n", ":3: channels.0: there is no channel 'tin can'"),
        ("budget: soon\n", ":3: budget: this is no duration"),
        ("budget: -1\n", ":3: budget: a duration must be more than nothing"),
        ("repeats: 0\n", ":3: repeats: Input should be greater than or equal to 1"),
        ("chanels: []\n", ":3: chanels: there is no such key; did you mean `channels`?"),
        ("kernels: [a, a]\n", ":3: kernels: two kernels are called a"),
        ("kernels: ['../a']\n", ":3: kernels.0"),
        ("set_aside: {scenario: nope}\n", ":3: set_aside.scenario: there is no scenario"),
        ("flash: none\nkernels: [a, b]\n", "the boards boot what they have"),
        ("flash: none\nkernels: [{name: a, variant: debug}]\n", "the boards boot what they have"),
        ("flash: usb\n", ":3: flash"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_plan(write(tmp_path, SMALLEST + more))
    assert said in str(caught.value)
    assert "plan.yaml" in str(caught.value)


def test_a_plan_without_boards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boards: this key is missing"):
        read_plan(write(tmp_path, "name: x\n"))


def test_the_schema_knows_every_key() -> None:
    assert {"name", "kernels", "boards", "budget", "set_aside"} <= set(schema()["properties"])
