"""A night as pages: what a lead reads first, and every cell's evidence one click away."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from farm.errors import UsageError
from farm.history import open_history
from farm.judge.night_folder import load_night, load_runs
from farm.model import Verdict
from farm.report.comparison import compare, earlier_nights
from farm.report.hexdump import Marks, hexdump
from farm.report.night import write_night_report
from farm.report.night_view import view_of
from farm.report.night_words import headline_of
from farm.report.printable import visible
from farm.report.trends import size_trends
from tests.history.nights import Shape
from tests.history.nights import make_night as night_of_values

from .nights import (
    Board,
    bench_lost,
    flipped,
    hole,
    make_night,
    stored_night,
    truncated,
)
from .test_report import HOSTILE, Page

LONG = "дрáйвер-" * 37 + "конец"  # 300 characters, more bytes


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good night, and one with a planted bug, a disagreement, a lost bench, a lost run, holes."""
    folder = tmp_path_factory.mktemp("out") / "nights"
    make_night(
        folder,
        "20260101-200000-aaaa",
        [Board("raw", "virtual"), Board("elf-ecc16", "virtual-ecc16"), Board("elf", "virtual-usb")],
    )
    make_night(
        folder,
        "20260102-200000-bbbb",
        [
            Board("raw", "virtual", {2: truncated("panicdump-sample.3", 4)}),
            Board("elf-ecc16", "virtual-ecc16", {1: flipped("panicdump-sample.1", 5)}),
            Board("elf", "virtual-usb", {1: bench_lost}, set_aside="its serial line was lost"),
            Board("raw-ecc16-memory", "virtual-memory", gone=True),
        ],
        holes=(hole("virtual"), hole("virtual-usb", "lkdtm-panic", "the board was set aside")),
        run_reports=True,
    )
    for night in sorted(folder.iterdir()):
        write_night_report(night, None)
    return folder


@pytest.fixture(scope="module")
def last(nights: Path) -> Path:
    return nights / "20260102-200000-bbbb"


def page_of(night: Path, name: str = "index.html") -> str:
    return (night / "report" / name).read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split())


def test_the_planted_bug_is_the_headline(last: Path) -> None:
    headline = re.search(r"<h1>(.*?)</h1>", page_of(last))
    assert headline is not None
    assert headline[1] == (
        "Driver panicdump-sample (panicdump-sample.3): record truncated by 4 bytes at offset "
        "0x3e4 of region cb0 in scenario sysrq-c on board virtual with kernel 6.12."
    )


def test_regressions_are_held_against_the_last_good_night(last: Path) -> None:
    text = words(page_of(last))
    assert "Against the last night, which was good: 2 regressions, 0 fixed." in text
    assert "sysrq-c on virtual, kernel 6.12" in text


def test_fixes_and_what_still_fails(tmp_path: Path) -> None:
    bad = {1: truncated("panicdump-sample.3", 4)}
    make_night(tmp_path, "20260101-200000-aaaa", [Board("raw", "a"), Board("raw", "b")])
    make_night(tmp_path, "20260102-200000-bbbb", [Board("raw", "a", bad), Board("raw", "b", bad)])
    last = make_night(tmp_path, "20260103-200000-cccc", [Board("raw", "a"), Board("raw", "b", bad)])
    night = load_night(last)
    view = view_of(night, load_runs(last, night).by_folder)
    pasts = earlier_nights(last, night, None)
    assert [past.night_id[-4:] for past in pasts] == ["bbbb", "aaaa"]
    before, good = compare(view, pasts)
    assert [cell.key.board for cell in before.fixes] == ["a"]
    assert [cell.key.board for cell in before.still_failing] == ["b"]
    assert not before.regressions
    assert [cell.key.board for cell in good.regressions] == ["b"]
    assert not good.fixes


def test_the_history_and_the_folders_tell_the_same(nights: Path, last: Path) -> None:
    night = load_night(last)
    view = view_of(night, load_runs(last, night).by_folder)
    with open_history(out=last.parent.parent) as history:
        for folder in sorted(nights.glob("2*")):
            other = load_night(folder)
            history.add_night(other, load_runs(folder, other).by_folder)
        from_history = compare(view, earlier_nights(last, night, history))
        trends = size_trends(night, view, history)
    from_disk = compare(view, earlier_nights(last, night, None))
    assert [one.regressions for one in from_history] == [one.regressions for one in from_disk]
    assert [one.past.night_id for one in from_disk] == ["20260101-200000-aaaa"]
    assert {len(one.points) for one in trends} == {2}
    sample = next(one for one in trends if one.device == "panicdump-sample.1")
    assert sample.now.budget_bytes == 131072
    assert sample.now.max_bytes == sample.points[0].max_bytes > 0


def test_bench_trouble_is_apart_from_kernel_trouble(last: Path) -> None:
    page = page_of(last)
    kernel = page[page.index('id="kernel"') : page.index('id="bench"')]
    bench = page[page.index('id="bench"') : page.index('id="matrix"')]
    assert "the serial line was lost" in bench
    assert "its serial line was lost" in bench
    assert "serial" not in words_of_part(kernel).replace("9000000.serial", "")
    assert "truncated" not in words_of_part(bench)


def words_of_part(part: str) -> str:
    return re.sub(r"<[^>]*>", " ", part)


def test_holes_are_visible_with_their_reason(last: Path) -> None:
    page = page_of(last)
    assert 'title="the night was over">not run</a>' in page
    assert "Holes: 2 cycles of the plan never ran" in words(page)
    assert "the board was set aside" in words(page)


def test_a_lost_run_is_named_and_its_verdicts_stay(last: Path) -> None:
    page = page_of(last)
    assert "Evidence missing: runs/20260102-200000-0004" in words(page)
    (cell,) = [
        path
        for path in (last / "report" / "cells").iterdir()
        if "virtual-memory" in path.read_text(encoding="utf-8")
    ]
    assert "The evidence of this cycle is missing" in cell.read_text(encoding="utf-8")


def cell_with(night: Path, text: str) -> str:
    found = [
        page
        for path in sorted((night / "report" / "cells").iterdir())
        if text in (page := path.read_text(encoding="utf-8"))
    ]
    assert found, text
    return found[0]


def test_the_hexdump_shows_where_bytes_are_missing(last: Path) -> None:
    text = cell_with(last, "record truncated by 4 bytes")
    assert "^ 4 bytes of region cb0 are missing here" in text
    assert "Kernel panic - not syncing: sysrq triggered crash</span>" in text
    assert "console.log" in text


def test_a_wrong_byte_is_marked_beside_what_it_should_be(last: Path) -> None:
    text = cell_with(last, "virtual-ecc16")
    assert "<mark>" in text
    assert '<span class="want">expected' in text
    assert "Channels compared: they differ" in text
    assert "1 byte differs, first at" in text


def test_hexdump_marks_and_leaves_out() -> None:
    data = bytes(range(256)) * 8
    rows = hexdump(data, Marks(frozenset({0x400}), {0x400: 0x7F}, {2048: "10 bytes are missing"}))
    lines = ["".join(text for text, _ in row.pieces) for row in rows]
    assert lines[0] == "00000000  " + bytes(range(16)).hex(" ") + "  |................|"
    assert ("00", "mark") in next(row for row in rows if row.marked).pieces
    at = next(i for i, line in enumerate(lines) if line.startswith("00000400"))
    assert lines[at + 1].startswith("expected  7f")
    assert lines[-1] == "00000800  ^ 10 bytes are missing"
    assert sum("not shown" in line for line in lines) == 2
    hidden = sum(
        int(line.split("...")[1].split()[0].replace(",", "")) for line in lines if "shown" in line
    )
    shown = sum(re.match(r"[0-9a-f]{8}  [0-9a-f]{2} ", line) is not None for line in lines)
    assert hidden + 16 * shown == len(data)


def links_of(path: Path) -> Iterator[tuple[str, Path, str]]:
    for _, name, value in Page(path.read_text(encoding="utf-8")).attributes:
        if name == "href":
            url, anchor = urldefrag(value)
            yield value, (path.parent / unquote(url)).resolve() if url else path, anchor


def test_every_link_leads_to_something_and_none_leads_out(nights: Path) -> None:
    pages = [nights / "index.html", *nights.glob("*/report/**/*.html")]
    assert len(pages) > 8
    anchors: dict[Path, set[str]] = {}
    for page in pages:
        for value, target, anchor in links_of(page):
            assert ":" not in value, (page, value)
            assert target.is_file(), (page, value)
            assert target.is_relative_to(nights), (page, value)
            if anchor:
                if target not in anchors:
                    text = Page(target.read_text(encoding="utf-8"))
                    anchors[target] = {v for _, name, v in text.attributes if name == "id"}
                assert anchor in anchors[target], (page, value)


def test_pages_hold_no_script_and_load_nothing(nights: Path) -> None:
    for path in [nights / "index.html", *nights.glob("*/report/**/*.html")]:
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not page.tags & {"script", "iframe", "object", "img", "form", "base"}
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "http" not in text.replace("http-equiv", "")
        assert "default-src 'none'" in text


@pytest.mark.parametrize("name", [*(one for one in HOSTILE if one != "\ud800"), LONG])
def test_hostile_names_stay_text_and_name_no_file(tmp_path: Path, name: str) -> None:
    nights = tmp_path / "nights"
    folder = make_night(nights, "20260101-200000-aaaa", [Board("raw", "virtual")])
    night = load_night(folder)
    cell = {"scenario": name, "board": name, "kernel": name}
    bad = {"why": name, "verdict": Verdict.FAIL}
    night = night.model_copy(
        update={
            "plan": name,
            "cycles": tuple(
                one.model_copy(update={"cell": one.cell.model_copy(update=cell), **bad})
                for one in night.cycles
            ),
            "boards": tuple(
                one.model_copy(update={"name": name, "set_aside": name}) for one in night.boards
            ),
            "kernels": tuple(one.model_copy(update={"name": name}) for one in night.kernels),
            "holes": (hole(name, name, name),),
        }
    )
    (folder / "night.json").write_text(night.model_dump_json(), encoding="utf-8")
    run = folder / night.runs[0] / "run.json"
    named = run.read_text(encoding="utf-8").replace("panicdump-sample", json.dumps(name)[1:-1])
    run.write_text(named, encoding="utf-8")
    write_night_report(folder, None)
    pages = sorted(path.relative_to(nights).as_posix() for path in nights.rglob("*.html"))
    report = "20260101-200000-aaaa/report"
    assert pages == [
        *(f"{report}/cells/{number:04d}.html" for number in (1, 2)),
        f"{report}/index.html",
        "index.html",
    ]
    for path in pages:
        page = Page((nights / path).read_text(encoding="utf-8"))
        assert not page.tags & {"script", "img"}
        shown = "".join(page.words)
        assert visible(name, limit=80).removesuffix("...") in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        for _, attribute, value in page.attributes:
            assert not attribute.startswith("on")
            assert attribute != "href" or ":" not in value


def test_a_night_of_many_cycles_stays_small(tmp_path: Path) -> None:
    shape = Shape(boards=4, kernels=2, scenarios=25, repeats=5)
    night, runs = night_of_values(0, shape)
    folder = stored_night(tmp_path / "nights", night, runs)
    write_night_report(folder, None)
    size = sum(path.stat().st_size for path in (folder / "report").rglob("*") if path.is_file())
    assert len(night.cycles) == 1000
    assert size < 8_000 * len(night.cycles)
    assert len(list((folder / "report" / "cells").iterdir())) == 200


def test_the_index_lists_all_nights_newest_first(nights: Path) -> None:
    (nights / "20251231-200000-zzzz").mkdir(exist_ok=True)
    (nights / "20251231-200000-zzzz" / "night.json").write_text("{}", encoding="utf-8")
    write_night_report(nights / "20260101-200000-aaaa", None)
    text = (nights / "index.html").read_text(encoding="utf-8")
    order = [text.index(name) for name in ("bbbb", "aaaa", "zzzz")]
    assert order == sorted(order)
    assert "record truncated by 4 bytes" in text
    assert "its report is not written yet" in text


def test_the_command_writes_nights_and_runs(last: Path) -> None:
    run = last / "runs" / "20260102-200000-0001"
    before = page_of(last)
    (last / "report" / "index.html").unlink()
    done = subprocess.run(
        [sys.executable, "-c", "from farm.cli import main; main()", "report", str(last), str(run)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert "FAIL night 20260102-200000-bbbb: Driver panicdump-sample" in done.stdout
    assert (run / "report.html").is_file()
    # Links to the reports of runs are there once these are.
    assert page_of(last).count("<h1>") == before.count("<h1>") == 1


def test_a_copy_of_a_night_leaves_its_neighbours_alone(last: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(last, tmp_path / "elsewhere")
    write_night_report(copy, None)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert "All nights" not in page_of(copy)


def test_a_damaged_night_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"night\.json cannot be read"):
        load_night(tmp_path)
    (tmp_path / "night.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="not a night's account"):
        load_night(tmp_path)
    (tmp_path / "night.json").write_text('{"schema_version": 9}', encoding="utf-8")
    with pytest.raises(UsageError, match="schema version 9"):
        load_night(tmp_path)
    (tmp_path / "night.json").write_text('{"schema_version": 1}', encoding="utf-8")
    with pytest.raises(UsageError, match="night_id"):
        load_night(tmp_path)


def test_a_night_that_goes_on_says_so(tmp_path: Path) -> None:
    folder = make_night(tmp_path / "nights", "20260101-200000-aaaa", [Board("raw", "virtual")])
    night = load_night(folder).model_copy(update={"finished": None})
    (folder / "night.json").write_text(night.model_dump_json(), encoding="utf-8")
    write_night_report(folder, None)
    assert "The night has not finished yet." in words(page_of(folder))


def test_a_cell_of_many_repeats_keeps_its_page_short(tmp_path: Path) -> None:
    shape = Shape(boards=1, kernels=1, scenarios=1, repeats=100, fail=frozenset({0}))
    folder = stored_night(tmp_path / "nights", *night_of_values(0, shape))
    write_night_report(folder, None)
    page = page_of(folder, "cells/0001.html")
    assert page.count('<section class="card cycle') == 20
    assert page.index('<section class="card cycle FAIL"') < page.index(
        '<section class="card cycle PASS"'
    )
    assert page.count("Repeat ") >= 100


def test_a_night_without_cycles_proves_nothing(tmp_path: Path) -> None:
    folder = make_night(tmp_path / "nights", "20260101-200000-aaaa", [])
    write_night_report(folder, None)
    night = load_night(folder)
    assert headline_of(view_of(night, {})).startswith("Nothing was proven")
    assert "Nothing was proven" in words(page_of(folder))
