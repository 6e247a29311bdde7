from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from farm.bench import manifest
from farm.bench.environment import Bench
from farm.bench.manifest import arm, build_id_of_notes, parse_identity
from farm.errors import BenchError, FarmError, FormatError, UsageError
from farm.model import RegionKind
from farm.scenarios import scenario_named

BOOT_ID = "12345678-9abc-4def-8123-456789abcdef"
TABLE = f"""\
panicdump 1
state boot_id={BOOT_ID} sequence=2 enabled=1 format=elf on_overflow=skip area=1000 \
capacity=900 needed=800 devices=1 dumpers=ramoops
device id=3 priority=-5 regions=2 needed=500 driver=panicdump-sample name=panicdump-sample.0
region device=3 index=0 kind=buffer va=0xffff000000001000 pa=0x40001000 size=16 width=0 stride=0 \
name=buf0
region device=3 index=1 kind=callback va=0x0 pa=0xffffffffffffffff size=9 width=0 stride=0 \
name=cb\\0401
end devices=1
"""


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    return struct.pack("<III", len(name), len(desc), kind) + padded(name) + padded(desc)


SYSRQ = scenario_named("sysrq-c")
READY = ("sysrq:1", "panic:1", "panic_on_oops:1", "pstore", "lkdtm")
NOTES = note(b"Linux\0", 257, b"\1") + note(b"GNU\0", 3, bytes(range(20)))


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the scripts read, as files of this computer."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "table").write_text(TABLE)
    (root / "nonce").write_text("")
    (root / "notes").write_bytes(NOTES)
    parameters = root / "parameters"
    parameters.mkdir()
    for name, value in {
        "mem_address": "1608515584", "mem_size": "2097152", "record_size": "131072",
        "console_size": "131072", "pmsg_size": "131072", "ftrace_size": "0",
        "panicdump_size": "524288", "ecc": "1", "dump_oops": "-1",
    }.items():  # fmt: skip
        (parameters / name).write_text(f"{value}\n")
    (root / "pstore").mkdir()
    (root / "pstore" / "panicdump-ramoops-0").write_bytes(b"old")
    monkeypatch.setattr(manifest, "NONCE", str(root / "nonce"))
    # The real one would change how this computer panics.
    monkeypatch.setattr(manifest, "_PREFLIGHT", "printf '%s\\n' " + " ".join(READY))
    scripts = {
        name: script.replace("/sys/kernel/notes", str(root / "notes"))
        .replace(manifest.TABLE, str(root / "table"))
        .replace("/sys/module/ramoops/parameters", str(parameters))
        .replace("/sys/fs/pstore", str(root / "pstore"))
        .replace("/sys/module/pstore/parameters/backend", str(root / "backend"))
        for name, script in manifest._SCRIPTS.items()
    }
    (root / "backend").write_text("ramoops\n")
    monkeypatch.setattr(manifest, "_SCRIPTS", scripts)
    return root


def test_the_manifest_says_what_the_board_says(shell_bench: Bench, sysfs: Path) -> None:
    got = arm(shell_bench.shell, "fake", SYSRQ, 7)
    assert (got.board, got.scenario, got.nonce) == ("fake", "sysrq-c", 7)
    assert (got.boot_id, got.sequence, got.enabled) == (BOOT_ID, 2, True)
    assert (got.format, got.on_overflow, got.backend) == ("elf", "skip", "ramoops")
    assert (got.area_bytes, got.capacity_bytes, got.needed_bytes) == (1000, 900, 800)
    assert got.build_id == bytes(range(20)).hex()
    assert got.kernel_release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert got.cmdline == Path("/proc/cmdline").read_text().strip()
    assert got.ramoops is not None
    assert got.ramoops.mem_address == 0x5FE00000
    assert got.ramoops.panicdump_size_bytes == 524288
    assert got.ramoops.ecc_size_bytes == 16
    (device,) = got.devices
    assert (device.name, device.driver, device.priority) == (
        "panicdump-sample.0", "panicdump-sample", -5,
    )  # fmt: skip
    assert [region.kind for region in device.regions] == [RegionKind.BUFFER, RegionKind.CALLBACK]
    assert [region.pa for region in device.regions] == [0x40001000, None]
    (old,) = got.old_records
    assert (old.name, old.size_bytes) == ("panicdump-ramoops-0", 3)


def test_the_device_tree_knows_the_ecc_size_better(shell_bench: Bench, sysfs: Path) -> None:
    script = "echo ' 00 00 00 20'"
    manifest._SCRIPTS["dtecc"] = script
    got = arm(shell_bench.shell, "fake", SYSRQ, 7)
    assert got.ramoops is not None
    assert got.ramoops.ecc_size_bytes == 32


def test_a_kernel_without_panicdump_is_named_and_what_to_do(
    shell_bench: Bench, sysfs: Path
) -> None:
    (sysfs / "table").unlink()
    with pytest.raises(UsageError, match="has no panicdump") as caught:
        arm(shell_bench.shell, "fake", SYSRQ, 7)
    assert "CONFIG_PANICDUMP" in caught.value.next_step


def test_a_cut_table_is_told_with_its_line(shell_bench: Bench, sysfs: Path) -> None:
    (sysfs / "table").write_text(TABLE.partition("region device=3 index=1")[0])
    with pytest.raises(FormatError) as caught:
        arm(shell_bench.shell, "fake", SYSRQ, 7)
    assert caught.value.offset == 5


def test_a_board_without_ramoops(shell_bench: Bench, sysfs: Path) -> None:
    for file in (sysfs / "parameters").iterdir():
        file.unlink()
    assert arm(shell_bench.shell, "fake", SYSRQ, 7).ramoops is None


def test_the_nonce_is_planted_and_read_back(shell_bench: Bench, sysfs: Path) -> None:
    nonce = 0x0123456789ABCDEF
    assert arm(shell_bench.shell, "fake", SYSRQ, nonce).nonce == nonce
    assert (sysfs / "nonce").read_text().strip() == "0x0123456789abcdef"
    (sysfs / "nonce").unlink()
    assert arm(shell_bench.shell, "fake", SYSRQ, nonce).nonce is None


@pytest.mark.parametrize("target", ["/dev/null", "/proc/sys/kernel/osrelease"])
def test_a_nonce_that_does_not_stick(shell_bench: Bench, sysfs: Path, target: str) -> None:
    (sysfs / "nonce").unlink()
    (sysfs / "nonce").symlink_to(target)
    with pytest.raises(BenchError, match="after 0x0000000000000005 was written"):
        arm(shell_bench.shell, "fake", SYSRQ, 5)


@pytest.mark.parametrize(
    ("lacking", "scenario", "fault", "words"),
    [
        ("sysrq:1", "break-c", UsageError, "has no sysrq"),
        ("lkdtm", "lkdtm-bug", UsageError, "has no LKDTM"),
        ("panic:1", "sysrq-c", BenchError, "does not reset after a panic"),
        ("panic_on_oops:1", "lkdtm-bug", BenchError, "an oops does not panic"),
        ("pstore", "sysrq-c", UsageError, "has no pstore"),
    ],
)
def test_what_a_panic_needs_is_missed_before_it(
    shell_bench: Bench,
    sysfs: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
    scenario: str,
    fault: type[FarmError],
    words: str,
) -> None:
    said = " ".join(one for one in READY if one != lacking)
    monkeypatch.setattr(manifest, "_PREFLIGHT", f"printf '%s\\n' {said}")
    with pytest.raises(fault, match=words):
        arm(shell_bench.shell, "fake", scenario_named(scenario), 7)


def test_build_ids() -> None:
    assert build_id_of_notes(NOTES) == bytes(range(20)).hex()
    assert build_id_of_notes(b"") is None
    assert build_id_of_notes(NOTES[:30]) is None
    assert build_id_of_notes(b"\xff" * 40) is None
    text = "6.12.1\n" + base64.encodebytes(NOTES).decode()
    assert parse_identity(text) == ("6.12.1", bytes(range(20)).hex())
    assert parse_identity("6.12.1\n") == ("6.12.1", None)
    assert parse_identity("6.12.1\nAAA") == ("6.12.1", None)
