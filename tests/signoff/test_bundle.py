"""A sign-off's folder: whole, signed, verifiable, and not a byte of it can change unnoticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.errors import BenchError, UsageError
from farm.history import History
from farm.judge.run_folder import load_run, rejudge
from farm.report.printable import visible
from farm.signoff.bundle import write_bundle
from farm.signoff.clauses import NO_GO, VIRTUAL_GO, Decision, decide
from farm.signoff.facts import HistoryFacts, facts_of_folder
from farm.signoff.manifest import MANIFEST, SIGNATURE
from farm.signoff.policy import KernelIdentity, SignoffPolicy
from farm.signoff.seal import sign_bundle, verify_bundle
from farm.signoff.signature import check_armour, verify_signature
from tests.export.test_export import NAMES
from tests.report.test_report import Page
from tests.signoff.runs import POLICY_TEXT, TODAY, policy, write_run


def made(
    root: Path, out: Path, rule: SignoffPolicy | None = None, key: Path | None = None
) -> Decision:
    rule = rule or policy()
    out.parent.mkdir(exist_ok=True)
    file = out.parent / "policy.yaml"
    file.write_text(POLICY_TEXT)
    facts = facts_of_folder(root)
    decision = decide(rule, facts, TODAY)
    write_bundle(rule, file, decision, out, hashes=(), source=facts.source, key=key)
    return decision


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("manager", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    public = (folder / "manager.pub").read_text().split()
    (folder / "allowed").write_text(f"manager@example.org {public[0]} {public[1]}\n")
    return folder


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    root = tmp_path_factory.mktemp("signed")
    write_run(root / "runs/run-1")
    made(root / "runs", root / "bundle", key=keys / "manager")
    return root / "bundle"


def pdf_pages(path: Path) -> list[str]:
    """The text of each page, as another program than the one that made it reads it."""
    return [page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(path)]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def found(folder: Path, keys: Path) -> dict[str, str]:
    _, changes = verify_bundle(folder, keys / "allowed")
    return {one.path: one.what for one in changes}


def test_a_bundle_is_whole_and_verified(signed: Path, keys: Path) -> None:
    assert verify_bundle(signed, keys / "allowed") == ("manager@example.org", [])
    names = {str(path.relative_to(signed)) for path in files_of(signed)}
    assert {"signoff.html", "signoff.pdf", "signoff.json", "policy.yaml", "cycles.csv"} <= names
    assert any(name.startswith("evidence/run-1/cycles/0003/captures/") for name in names)
    done = subprocess.run(["sha256sum", "-c", "--quiet", MANIFEST], cwd=signed, check=False)
    assert done.returncode == 0


def test_its_evidence_can_be_judged_from_the_bundle_alone(signed: Path) -> None:
    folder = signed / "evidence/run-1"
    again = rejudge(folder)
    assert again.verdict is load_run(folder).verdict
    account = json.loads((signed / "signoff.json").read_text())
    assert account["decision"] == "GO"
    assert account["counts_as_hardware"] is True
    for cited in account["cited"]:
        path, _, anchor = cited["page"].partition("#")
        assert f'id="{anchor}"' in (signed / path).read_text()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(data=st.data())
def test_any_single_byte_that_changes_is_found(signed: Path, keys: Path, data: Any) -> None:
    path = data.draw(st.sampled_from(files_of(signed)))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(before)
    changed[at] ^= other
    path.write_bytes(bytes(changed))
    try:
        changes = found(signed, keys)
    finally:
        path.write_bytes(before)
    name = str(path.relative_to(signed))
    if name == MANIFEST:
        assert SIGNATURE in changes
    else:
        assert name in changes
    if len(before) > 4096 and name not in ("blocks.json", MANIFEST):
        first = at & ~0xFFF
        assert f"first in bytes {first:#x} to" in changes[name]


def test_every_byte_of_the_signature_counts(signed: Path, keys: Path, tmp_path: Path) -> None:
    shutil.copyfile(signed / MANIFEST, tmp_path / MANIFEST)
    before = (signed / SIGNATURE).read_bytes()
    missed = []
    for at, byte in enumerate(before):
        # ssh-keygen overlooks white space in another form.
        for other in {byte ^ 0x01, 0x20 if byte == 0x0A else byte ^ 0x02}:
            changed = before[:at] + bytes([other]) + before[at + 1 :]
            # Most fall at once; only the others are worth asking ssh-keygen.
            if check_armour(changed):
                continue
            (tmp_path / SIGNATURE).write_bytes(changed)
            _, wrong = verify_signature(tmp_path, keys / "allowed", "manager@example.org")
            if not wrong:
                missed.append((at, other))
    assert missed == []


def _rename(folder: Path) -> None:
    (folder / "cycles.csv").rename(folder / "cycle.csv")


def _symlink(folder: Path) -> None:
    outside = folder.parent / "outside.csv"
    shutil.move(folder / "cycles.csv", outside)
    (folder / "cycles.csv").symlink_to(outside)


def _symlink_folder(folder: Path) -> None:
    shutil.move(folder / "evidence", folder.parent / "moved")
    (folder / "evidence").symlink_to(folder.parent / "moved")


def _drop_line(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text().splitlines(keepends=True)
    (folder / MANIFEST).write_text("".join(line for line in lines if "cycles.csv" not in line))
    (folder / "cycles.csv").unlink()


@pytest.mark.parametrize(
    ("change", "path", "what"),
    [
        (lambda folder: (folder / "signoff.json").unlink(), "signoff.json", "missing"),
        (lambda folder: (folder / "new.txt").write_text("x"), "new.txt", "added"),
        (lambda folder: (folder / "evidence/empty").mkdir(), "evidence/empty", "not signed"),
        (_rename, "cycle.csv", "renamed, was cycles.csv"),
        (_symlink, "cycles.csv", "symlink"),
        (_symlink_folder, "evidence", "symlink"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe", "no plain file"),
        (_drop_line, SIGNATURE, "is not one of manager@example.org"),
        (lambda folder: (folder / SIGNATURE).unlink(), SIGNATURE, "cannot be read"),
        (lambda folder: (folder / MANIFEST).unlink(), MANIFEST, "missing"),
        (
            lambda folder: (folder / "signoff.pdf").open("ab").write(b"\n"),
            "signoff.pdf",
            "changed",
        ),
        (lambda folder: os.truncate(folder / "signoff.pdf", 5000), "signoff.pdf", "changed, first"),
        (lambda folder: os.truncate(folder / "signoff.pdf", 4096), "signoff.pdf", "cut short"),
    ],
)
def test_every_kind_of_change_is_named(
    signed: Path,
    keys: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    path: str,
    what: str,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(signed, copy)
    change(copy)
    assert what in found(copy, keys)[path]


def test_a_stranger_does_not_sign_for_the_manager(signed: Path, keys: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(signed, copy)
    (copy / "cycles.csv").write_text("nothing\n")
    with pytest.raises(UsageError, match=r"not as it was written: cycles\.csv"):
        sign_bundle(copy, keys / "stranger")
    shutil.copyfile(signed / "cycles.csv", copy / "cycles.csv")
    sign_bundle(copy, keys / "stranger")
    assert "is of nobody" in found(copy, keys)[SIGNATURE]
    # A signature for something else, by the right key, is none either.
    (copy / SIGNATURE).unlink()
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / "manager", "-n", "file", copy / MANIFEST],
        check=True,
    )
    assert "not for panic-farm-signoff" in found(copy, keys)[SIGNATURE]


def test_evidence_that_was_changed_since_is_no_go(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/run-1")
    capture = tmp_path / "runs/run-1/cycles/0003-x/captures/pstorefs/0001.bin"
    data = bytearray(capture.read_bytes())
    data[-1] ^= 1
    capture.write_bytes(data)
    decision = made(tmp_path / "runs", tmp_path / "out")
    assert decision.label == NO_GO
    (one,) = decision.clauses[-1].problems
    assert "judged again" in one.what or "not what was captured" in one.what


def test_a_verdict_that_its_captures_do_not_bear_out_is_no_go(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/run-1", broken=[3])
    cycles = list(run.cycles)
    cycles[2] = cycles[2].model_copy(update={"result": cycles[1].result})
    changed = run.model_copy(update={"cycles": tuple(cycles)})
    (tmp_path / "runs/run-1/run.json").write_text(changed.model_dump_json())
    decision = made(tmp_path / "runs", tmp_path / "out")
    assert decision.label == NO_GO
    assert "judged again from its captures it is FAIL" in decision.clauses[-1].problems[0].what


def test_virtual_is_on_every_page(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/run-1", virtual=True)
    decision = made(tmp_path / "runs", tmp_path / "out", policy(allow_virtual=True))
    assert decision.label == VIRTUAL_GO
    pages = pdf_pages(tmp_path / "out/signoff.pdf")
    assert len(pages) > 1
    for text in pages:
        assert "VIRTUAL BOARDS: does not count as hardware" in text
        assert "GO (VIRTUAL ONLY, not hardware)" in text
    assert "GO (VIRTUAL ONLY, not hardware)" in (tmp_path / "out/signoff.html").read_text()
    account = json.loads((tmp_path / "out/signoff.json").read_text())
    assert account["counts_as_hardware"] is False


HOSTILE_PARTS = (*NAMES, '"; } @page { @top-left { content: "GO" } } </style><b>')


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/run-1", ("sysrq-c",) * len(HOSTILE_PARTS))
    facts = facts_of_folder(tmp_path / "runs")
    named = dict(zip([one.id for one in facts.cycles], HOSTILE_PARTS, strict=True))
    facts.cycles = [
        one._replace(
            why=named[one.id],
            driver=named[one.id],
            scenario=named[one.id],
            board=named[one.id],
            started=named[one.id],
            channels=frozenset([named[one.id]]),
        )
        for one in facts.cycles
    ]
    facts.device_rows = {
        key: tuple(
            replace(row, driver=named[key], device=named[key], why=named[key]) for row in rows
        )
        for key, rows in facts.device_rows.items()
    }
    # A policy is UTF-8 text: the one name that is none can only come from a board.
    names = [name for name in HOSTILE_PARTS if name and name != "\ud800"]
    waivers = [
        {
            "clause": "coverage",
            **dict.fromkeys(("driver", "board", "owner", "reason"), name),
            "expires": "2027-01-01",
        }
        for name in names[:3]
    ]
    rule = policy(
        name=HOSTILE_PARTS[-1],
        rule="\n".join(names),
        drivers=names,
        waivers=waivers,
        required=[{"boards": [name], "scenarios": [name], "channels": [name]} for name in names],
    )
    file = tmp_path / "policy.yaml"
    file.write_text("x")
    out = tmp_path / "out"
    write_bundle(rule, file, decide(rule, facts, TODAY), out, hashes=(), source=HOSTILE_PARTS[-1])
    text = (out / "signoff.html").read_text()
    page = Page(text)
    assert page.tags.isdisjoint({"script", "img"})
    assert all(not name.startswith("on") for _, name, _ in page.attributes)
    for _, name, value in page.attributes:
        if name == "href":
            assert value.startswith(("#main", "#clause-", "evidence/run-1/report.html#cycle-")), (
                value
            )
    words = "".join(page.words)
    assert all(visible(name) in words for name in HOSTILE_PARTS)
    account = (out / "signoff.json").read_text()
    assert account.isascii()
    json.loads(account)
    assert "<script>alert(1)</script>" in "".join(pdf_pages(out / "signoff.pdf"))
    assert verify_bundle(out, None) == ("", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "policy.yaml", "runs"]


@pytest.mark.parametrize("stage", ["page_html", "Printer.pdf", "write_manifest", "sign"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Path, stage: str, error: BaseException
) -> None:
    write_run(tmp_path / "runs/run-1")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"farm.signoff.bundle.{stage}", fail)
    with pytest.raises((BenchError, KeyboardInterrupt), match=None) as raised:
        made(tmp_path / "runs", tmp_path / "out/s", key=keys / "manager")
    if isinstance(error, OSError):
        assert "the disk is full" in str(raised.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["policy.yaml"]


def test_a_printer_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where WeasyPrint finds no libpango; what it says is shown safely."""
    write_run(tmp_path / "runs/run-1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/weasyprint.py").write_text("raise OSError('no libpango \\x1b[2J here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(BenchError, match=r"cannot be printed: OSError: no libpango") as raised:
        made(tmp_path / "runs", tmp_path / "out/s")
    assert raised.value.part == "host"
    assert "\x1b" not in str(raised.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["policy.yaml"]


def test_a_sign_off_is_never_written_over(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/run-1")
    made(tmp_path / "runs", tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        made(tmp_path / "runs", tmp_path / "out")


def test_the_history_says_the_same(tmp_path: Path, history: History) -> None:
    run = write_run(tmp_path / "run-1", ("sysrq-c",) * 4, broken=[2])
    history.add_run(run, path="run-1")
    rule = policy(failure_rate={"max": 0.9})
    asked = decide(rule, HistoryFacts(history, tmp_path, [rule.kernel]), TODAY)
    read = decide(rule, facts_of_folder(tmp_path), TODAY)
    assert [(one.name, one.word) for one in asked.clauses] == [
        (one.name, one.word) for one in read.clauses
    ]
    assert asked.cited_ids() == read.cited_ids()
    assert asked.sizes == read.sizes


def test_the_history_counts_devices_as_the_runs_do(tmp_path: Path, history: History) -> None:
    """Missing in all and in some cycles, not intact in one, too large, grown: said alike."""
    earlier = write_run(tmp_path / "run-0", build="11" * 20)
    run = write_run(tmp_path / "run-1", ("sysrq-c",) * 4 + ("lkdtm-bug",), broken=[2], large=512)
    last = run.cycles[-2]
    without = last.result.model_copy(update={"devices": last.result.devices[1:]})
    cycles = (*run.cycles[:-2], last.model_copy(update={"result": without}), run.cycles[-1])
    run = run.model_copy(update={"cycles": cycles})
    (tmp_path / "run-1" / "run.json").write_text(run.model_dump_json())
    named = [row.device for row in run.cycles[0].result.devices]
    rule = policy(
        drivers=[*named, "panicdump-*", "nobody"],
        budget_bytes={"panicdump-*": 300, named[1]: 200},
        total_budget_bytes=900,
        growth={"baseline": {"build_id": "11" * 20}, "max_percent": 10},
    )
    for one in (earlier, run):
        history.add_run(one, path=one.run_id)
    kernels = [rule.kernel, KernelIdentity(build_id="11" * 20)]
    asked = decide(rule, HistoryFacts(history, tmp_path, kernels), TODAY)
    read = decide(rule, facts_of_folder(tmp_path), TODAY)
    by_name = {one.name: one for one in asked.clauses}
    said = [problem.what for problem in by_name["drivers"].problems]
    assert any("not there in 1 cycles" in one for one in said), said
    assert any("not there in 4 cycles" in one for one in said), said
    assert any("did not arrive intact in 1 cycles" in one for one in said), said
    for name in ("drivers", "budget", "growth"):
        assert by_name[name].problems
    assert [by_name[one.name] for one in read.clauses if one.name in by_name] == read.clauses


def farm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


def test_the_command_and_its_exit_codes(tmp_path: Path, keys: Path) -> None:
    write_run(tmp_path / "runs/run-1")
    rule = tmp_path / "policy.yaml"
    rule.write_text(POLICY_TEXT)
    out = tmp_path / "s"
    done = farm("signoff", rule, "--nights", tmp_path / "runs", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "GO  Release" in done.stdout
    assert farm("signoff", "sign", out, "--key", keys / "manager").returncode == 0
    verify = ("signoff", "verify", out, "--allowed-signers", keys / "allowed")
    done = farm(*verify)
    assert done.returncode == 0, done.stdout
    assert "verified: every byte is as manager@example.org signed it" in done.stdout
    (out / "cycles.csv").write_text("x")
    done = farm(*verify, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["changes"][0]["path"] == "cycles.csv"
    assert farm("signoff", "verify", out).returncode == 2
    rule.write_text(POLICY_TEXT.replace("repeats: 3", "repeats: 30"))
    done = farm("signoff", rule, "--nights", tmp_path / "runs", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["decision"] == "NO-GO"
    rule.write_text("nothing: 1\n")
    assert farm("signoff", rule, "--nights", tmp_path / "runs").returncode == 2
