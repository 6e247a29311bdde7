"""Every report form of good, hostile and empty runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from farm.errors import BenchError
from farm.model import (
    BenchFault,
    Capture,
    Cycle,
    CycleInput,
    CycleVerdict,
    DeviceVerdict,
    Evidence,
    Finding,
    FindingKind,
    Manifest,
    PanicAccount,
    Policy,
    Ramoops,
    Recovery,
    RecoveryStep,
    Run,
    Subject,
    Verdict,
)
from farm.report import print_run, report_html, report_text, write_reports
from farm.report.pages import local_link
from farm.report.printable import duration_text, size_text, visible

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../x",
    "[red]bold[/red]",
    "javascript:alert(1)",
    "\x1b[2J\x1b]0;title\x07\r\n\u202eevil\x00",
    "{{ 7 * 7 }}",
    "\ud800",
)


def finding(name: str, verdict: Verdict, path: str) -> Finding:
    return Finding(
        subject=Subject.DEVICE,
        kind=FindingKind.CORRUPT if verdict is Verdict.FAIL else FindingKind.INTACT,
        verdict=verdict,
        message=f"{name}: region {name} is wrong",
        device=name,
        driver=name,
        evidence=Evidence(
            file=path,
            offset=0x1F4,
            region=name,
            region_offset=12,
            wrong_bytes=3,
            expected="00 11",
            got="ff 11",
            console_lines=(name, "Kernel panic"),
        ),
    )


def cycle(
    number: int,
    verdict: Verdict,
    *,
    name: str = "panicdump-sample.0",
    path: str = "captures/pstorefs/0001.bin",
) -> Cycle:
    manifest = Manifest(
        board=name,
        scenario="sysrq-c",
        nonce=7,
        boot_id=name,
        sequence=0,
        enabled=True,
        format="elf",
        on_overflow="stop",
        area_bytes=262144,
        capacity_bytes=131072,
        needed_bytes=65536,
        backend="ramoops",
        kernel_release=name,
        build_id=None,
        cmdline=name,
        ramoops=Ramoops(
            mem_address=0x5FE00000,
            mem_size_bytes=1 << 20,
            record_size_bytes=0x4000,
            console_size_bytes=0x10000,
            pmsg_size_bytes=0,
            ftrace_size_bytes=0,
            panicdump_size_bytes=0x40000,
            ecc_size_bytes=16,
        ),
        devices=(),
    )
    fault = BenchFault(part="serial", stage="collect", message=name, next_step=name)
    return Cycle(
        number=number,
        scenario=name if name in HOSTILE else f"scenario-{number % 3}",
        repeat=(number - 1) // 3 + 1,
        folder=f"cycles/{number:04d}-x",
        started="2026-01-01T00:00:00.000+00:00",
        stages_s={"boot": 1.2, "arm": 0.2, "panic": 0.1, "reset": 1.4, "collect": 0.9, name: 0.0},
        wall_s=3.8,
        board_s=2.7,
        input=CycleInput(
            board=name,
            virtual=True,
            scenario=name,
            repeat=1,
            manifest=manifest,
            panic=PanicAccount(
                trigger=name,
                panic_line="Kernel panic",
                signature_found=True,
                panic_console_lines=(name, "Kernel panic - not syncing", name),
                reset="warm",
                panic_to_reset_s=0.2,
                reset_to_shell_s=1.1,
            ),
            captures=(
                Capture(
                    channel=name,
                    board_name=name,
                    path=path,
                    size_bytes=6000,
                    sha256="ab" * 32,
                    complete=False,
                    note=name,
                ),
            ),
            policy=Policy(),
            fault=fault if verdict is Verdict.ERROR else None,
        ),
        result=CycleVerdict(
            verdict=verdict,
            why=f"{name} is what it is",
            devices=tuple(
                DeviceVerdict(
                    device=name,
                    driver=name,
                    record_bytes=size,
                    data_bytes=size,
                    budget_bytes=budget,
                    verdict=verdict,
                    why=name,
                    capture=path,
                    required=True,
                )
                for size, budget in ((6000, None), (0, 5000))
            ),
            findings=(finding(name, verdict, path),),
            corrected_symbols=3,
            used_bytes=6000,
            capacity_bytes=131072,
        ),
    )


def run_of(*cycles: Cycle, name: str = "virtual") -> Run:
    found = {one.result.verdict for one in cycles}
    order = (Verdict.FAIL, Verdict.ERROR, Verdict.PASS)
    verdict = next((one for one in order if one in found), Verdict.SKIP)
    return Run(
        run_id=name,
        farm_version="0.1.0",
        started="2026-01-01T00:00:00.000+00:00",
        board=name,
        virtual=True,
        lg_env=name,
        kernel_release=name,
        build_id=name,
        command=("farm", name),
        wall_s=60.0,
        board_s=40.0,
        wall_to_board=1.5 if cycles else None,
        verdict=verdict,
        totals={},
        planned_cycles=15,
        cycles=cycles,
    )


class Page(HTMLParser):
    """The tags, links and text of a page; any tag left open or any script is an error."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


OUR_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "div", "span"),
    *("h1", "h2", "h3", "p", "b", "i", "u", "a", "pre", "code", "footer", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "header", "strong"),
}


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.tags <= OUR_TAGS
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"src", "srcset", "action", "background", "data", "poster"}
        if name == "href":
            assert tag == "a"
            assert value.startswith(("#main", "#cycle-", "cycles/")), value
            assert ".." not in value
            assert ":" not in value
        if name == "style":
            assert "url" not in value
            assert '"' not in value
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert "url(" not in text
    return page


def terminal(run: Run, width: int = 100) -> str:
    out = io.StringIO()
    print_run(run, console=Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("verdict", list(Verdict))
def test_hostile_names_stay_text_in_every_form(name: str, verdict: Verdict) -> None:
    run = run_of(cycle(1, verdict, name=name, path=name), name=name)
    page = check_page(report_html(run))
    assert visible(name) in "".join(page.words)
    for text in (report_text(run), terminal(run), terminal(run, 160)):
        assert all(line.isprintable() for line in text.splitlines())
        assert "\x1b" not in text
    assert visible(name, ascii_only=True) in report_text(run)
    assert report_text(run).isascii()


def test_markup_is_printed_not_obeyed() -> None:
    run = run_of(cycle(1, Verdict.FAIL, name="[red]bold[/red]"))
    assert "[red]bold[/red]" in terminal(run, 160)


def test_fifteen_cycles() -> None:
    verdicts = [Verdict.PASS] * 12 + [Verdict.FAIL, Verdict.ERROR, Verdict.SKIP]
    run = run_of(*(cycle(number, verdict) for number, verdict in enumerate(verdicts, 1)))
    page = check_page(report_html(run))
    anchors = {value for _, name, value in page.attributes if name == "id"}
    links = {value for _, name, value in page.attributes if name == "href"}
    assert anchors == {"main"} | {f"cycle-{number}" for number in range(1, 16)}
    assert {f"#{anchor}" for anchor in anchors} <= links
    assert "cycles/0013-x/captures/pstorefs/0001.bin" in links
    assert "virtual board: does not count as hardware" in " ".join(page.words)
    assert "The kernel failed in 1 of 15 cycles" in report_text(run)
    assert "the bench failed in 1 of 15 cycles" in terminal(run, 160)


def test_what_went_wrong_is_open_and_what_passed_is_folded() -> None:
    verdicts = [Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.SKIP, Verdict.ERROR]
    run = run_of(*(cycle(number, verdict) for number, verdict in enumerate(verdicts, 1)))
    cards = report_html(run).split('<section class="card cycle ')[1:]
    assert len(cards) == len(verdicts)
    opened = [card.index("<details open>") < card.index("<table") for card in cards[::2]]
    folded = [card.index("<details>") < card.index("<table") for card in cards[1::2]]
    assert (opened, folded) == ([True, True, True], [True, True])


def test_the_terminal_shows_in_full_what_went_wrong_and_the_first() -> None:
    verdicts = [Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.SKIP, Verdict.ERROR]
    run = run_of(*(cycle(number, verdict) for number, verdict in enumerate(verdicts, 1)))
    text = terminal(run, 160)
    titles = [line.split(":")[0] for line in text.splitlines() if line.startswith("Cycle ")]
    assert titles == ["Cycle 1", "Cycle 3", "Cycle 5"]
    # The table of cycles lists all of them.
    assert [text.count(f"scenario-{n % 3} ") > 0 for n in range(3)] == [True] * 3


def test_a_failure_shows_its_evidence() -> None:
    words = " ".join(check_page(report_html(run_of(cycle(1, Verdict.FAIL)))).words)
    for evidence in ("0x1f4", "ff 11", "00 11", "3 bytes wrong", "Kernel panic - not syncing"):
        assert evidence in words


def test_how_a_board_was_got_back_is_in_every_form() -> None:
    step = RecoveryStep(
        step="power cycle",
        reason="it <b>hung</b>",
        outcome="the shell answers",
        succeeded=True,
        seconds=2.5,
    )
    run = run_of(cycle(1, Verdict.PASS)).model_copy(
        update={"recoveries": (Recovery(cycle=1, steps=(step,)),)}
    )
    words = "recovery after cycle 1: power cycle, 2.50 s, succeeded"
    page = report_html(run)
    assert words in page
    assert "<b>hung" not in page
    assert words in report_text(run)
    assert words in terminal(run, 200)


def test_a_run_without_cycles() -> None:
    run = run_of()
    check_page(report_html(run))
    for text in (report_text(run), terminal(run)):
        assert "nothing was proven" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interrupted": True}, "The run was interrupted after 1 of 15 planned cycles"),
        ({"ended_early": "the board is lost"}, "ended early after 1 of 15 planned cycles"),
        ({"ended_early": "lost", "planned_cycles": 0}, "ended early after 1 cycle (lost)"),
    ],
)
def test_a_run_that_did_not_finish_says_so(changes: dict[str, object], words: str) -> None:
    run = run_of(cycle(1, Verdict.PASS)).model_copy(update=changes)
    assert words in report_text(run)
    assert words in "".join(check_page(report_html(run)).words)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "x\0y"])
def test_no_link_leads_out(path: str) -> None:
    assert local_link("cycles/0001-x", path) is None


def test_a_link_cannot_become_a_scheme() -> None:
    assert local_link("javascript:alert(1)") == "javascript%3Aalert%281%29"


def test_reports_appear_whole(tmp_path: Path) -> None:
    written = write_reports(tmp_path, run_of(cycle(1, Verdict.PASS)))
    assert [path.name for path in written] == ["report.html", "report.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.txt"]
    with pytest.raises(BenchError, match="cannot be written"):
        write_reports(tmp_path / "nowhere", run_of())


def test_the_command_writes_all_forms_again(tmp_path: Path) -> None:
    run = run_of(cycle(1, Verdict.FAIL))
    (tmp_path / "run.json").write_text(run.model_dump_json())

    def farm(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from farm.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "120"},
        )

    done = farm("report", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "panicdump-sample.0" in done.stdout
    (tmp_path / "report.html").unlink()
    done = farm("report", str(tmp_path), "--json")
    assert str(tmp_path / "report.html") in json.loads(done.stdout)["written"]
    assert (tmp_path / "report.html").exists()
    assert farm("report", str(tmp_path / "none")).returncode == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0842, "84 ms"), (2.311, "2.31 s"), (59.97, "1 min 00 s"), (7620, "2 h 07 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_sizes_read_well() -> None:
    assert [size_text(n) for n in (312, 65536, 3 << 20)] == ["312 B", "64.0 KiB", "3.0 MiB"]
