"""A plan that somebody else wrote decides nothing of what runs on the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import UsageError
from farm.nightly.foreign import check_foreign
from farm.nightly.plan import read_plan


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "devices"
    folder.mkdir()
    for name in ("virtual.yaml", "boot.img", "vmlinux"):
        (folder / name).write_text("")
    (tmp_path / "evil.yaml").write_text("imports: [/tmp/evil.py]")
    (folder / "link.yaml").symlink_to(tmp_path / "evil.yaml")
    return folder


def check(allowed: Path, text: str) -> None:
    plan = allowed.parent / "plan.yaml"
    plan.write_text(f"name: x\n{text}\n")
    check_foreign(read_plan(plan), allowed)


@pytest.mark.parametrize(
    "text",
    [
        "boards: [devices/virtual.yaml]",
        "boards: [devices/virtual.yaml]\nkernels: [{name: a, variant: debug, base: '6.1'}]",
        "boards: [devices/virtual.yaml]\n"
        "kernels: [{name: a, boot_image: devices/boot.img, vmlinux: devices/vmlinux}]",
    ],
)
def test_what_is_there_already_may_be_chosen(allowed: Path, text: str) -> None:
    check(allowed, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("boards: [evil.yaml]", "evil.yaml is not below"),
        ("boards: [devices/../evil.yaml]", "is not below"),
        ("boards: [devices/link.yaml]", "link.yaml is not below"),
        ("boards: [/etc/passwd]", "/etc/passwd is not below"),
        ("boards: [devices/virtual.yaml]\nkernels: [{name: a, patches: [x.patch]}]", "patches"),
        ("boards: [devices/virtual.yaml]\nkernels: [{name: a, variant: ../x}]", "no name"),
        (
            "boards: [devices/virtual.yaml]\n"
            "kernels: [{name: a, boot_image: devices/boot.img, vmlinux: /etc/shadow}]",
            "vmlinux",
        ),
    ],
)
def test_what_would_run_or_be_read_here_is_refused(allowed: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check(allowed, text)
