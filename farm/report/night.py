"""The report of a night: static pages that need nothing else, and the index of all nights.

    <night>/report/index.html       verdict, changes, causes, matrix, sizes, durations
                   cells/0001.html  a cell of the matrix: every repeat, with its evidence
                   style.css        for the pages of cells; index.html carries its own
                   summary.json     what the index of all nights shows of this one
    <nights>/index.html             all nights

Pages are written beside the old ones and take their place at once. What went wrong is shown with
all its evidence; of the rest, the first cycles are, and the others link to the files of their run:
a night of thousands of cycles must stay readable, and small.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farm.errors import BenchError, FarmError
from farm.judge.night_folder import Runs, load_night, load_runs
from farm.judge.run_folder import inside, replace_text
from farm.model import Night, Verdict
from farm.report.comparison import Comparison, compare, earlier_nights, new_first
from farm.report.evidence import EvidenceView, evidence_of, region_flags
from farm.report.night_matrix import Matrix, matrix_of
from farm.report.night_summary import REPORT_FOLDER, SUMMARY_NAME, NightSummary, summaries_of
from farm.report.night_view import Cell, NightView, Shot, view_of
from farm.report.night_words import (
    cause_text,
    counts_text,
    failure_text,
    headline_of,
    places_text,
    plural,
)
from farm.report.pages import link_below, local_link, render, style
from farm.report.trends import SizeTrend, durations, size_trends, slowest

if TYPE_CHECKING:
    from farm.history import History

__all__ = ["write_night_report", "write_nights_index"]

NIGHTS_FOLDER = "nights"
INDEX_NAME = "index.html"
STYLE_NAME = "style.css"
RUN_REPORT_NAME = "report.html"

# Cycles shown with all their evidence: of those that went wrong, and of those that passed.
_MOST_BAD, _MOST_GOOD = 60, 20
_MOST_BAD_PER_CELL = 3
# Cycles that a cell's page has a section for, the worst first; its table lists all.
_MOST_SECTIONS = 20


@dataclass(frozen=True, slots=True)
class _Shown:
    """One cycle on its cell's page; ``captures`` are the paths of those that are there."""

    shot: Shot
    folder: str
    console: str | None
    run_report: str | None
    evidence: EvidenceView | None
    captures: frozenset[str]

    def link(self, path: str) -> str | None:
        """Link to a file of the cycle's folder that is there."""
        if path not in self.captures:
            return None
        url = local_link(self.folder, path)
        return None if url is None else f"../../{url}"


class _Folder:
    """Where the evidence lies, seen from a page one level below the night's report."""

    def __init__(self, night_dir: Path, runs: Runs) -> None:
        self.night_dir = night_dir
        self.runs = runs
        self._reports: dict[str, bool] = {}

    def _link(self, *parts: str) -> str | None:
        url = local_link(*parts)
        return None if url is None else f"../../{url}"

    def shown(self, shot: Shot, *, full: bool) -> _Shown:
        """Gather a cycle's links, and its evidence where that is wanted and there."""
        run, cycle = shot.night.run, shot.cycle
        if cycle is None:
            return _Shown(shot, "", None, None, None, frozenset())
        if run not in self._reports:
            self._reports[run] = (self.night_dir / run / RUN_REPORT_NAME).is_file()
        report = None
        if self._reports[run] and (url := self._link(run, RUN_REPORT_NAME)) is not None:
            report = f"{url}#cycle-{cycle.number}"
        try:
            folder = inside(self.night_dir / run, cycle.folder)
        except FarmError:
            return _Shown(shot, "", None, report, None, frozenset())
        there = (folder / "console.log").is_file()
        return _Shown(
            shot=shot,
            folder=f"{run}/{cycle.folder}",
            console=self._link(run, cycle.folder, "console.log") if there else None,
            run_report=report,
            evidence=evidence_of(folder, cycle) if full else None,
            captures=frozenset(_present(folder, (one.path for one in cycle.input.captures))),
        )


def _present(folder: Path, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        try:
            if inside(folder, path).is_file():
                yield path
        except (FarmError, OSError, ValueError):
            continue


def _choose(view: NightView) -> set[int]:
    """Pick the cycles that are shown with all their evidence, by identity of the shot."""
    chosen: set[int] = set()
    bad = good = 0
    for wanted in (Verdict.FAIL, Verdict.ERROR):
        for cell in view.cells:
            shots = [shot for shot in cell.counting if shot.verdict is wanted]
            for shot in shots[:_MOST_BAD_PER_CELL]:
                if bad < _MOST_BAD:
                    chosen.add(id(shot))
                    bad += 1
    for cell in view.cells:
        first = next((shot for shot in cell.counting if shot.verdict is Verdict.PASS), None)
        if first is not None and good < _MOST_GOOD:
            chosen.add(id(first))
            good += 1
    return chosen


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the night is held against."""

    comparisons: tuple[Comparison, ...]
    trends: tuple[SizeTrend, ...]
    note: str


def _ask(night_dir: Path, view: NightView, history: History | None) -> _Asked:
    night = view.night
    try:
        pasts = earlier_nights(night_dir, night, history)
        return _Asked(compare(view, pasts), size_trends(night, view, history), "")
    except FarmError as error:
        # The night's own verdict does not wait for a database.
        pasts = earlier_nights(night_dir, night, None)
        note = f"The history did not answer: {error.message}"
        return _Asked(compare(view, pasts), size_trends(night, view, None), note)


def _summary(view: NightView, asked: _Asked) -> NightSummary:
    night = view.night
    last = next(iter(asked.comparisons), None)
    return NightSummary(
        night_id=night.night_id,
        plan=night.plan,
        started=night.started,
        wall_s=night.wall_s,
        verdict=night.verdict,
        headline=headline_of(view),
        cells=len(view.cells),
        passed=view.count(Verdict.PASS),
        failed=view.count(Verdict.FAIL),
        errors=view.count(Verdict.ERROR),
        holes=view.count(None),
        regressions=None if last is None else len(last.regressions),
        fixes=None if last is None else len(last.fixes),
        kernels=tuple(kernel.name for kernel in night.kernels),
        boards=len(night.boards),
        virtual_boards=sum(board.virtual for board in night.boards),
        set_aside=sum(bool(board.set_aside) for board in night.boards),
    )


def _virtual_text(night: Night) -> str:
    virtual = sum(board.virtual for board in night.boards)
    if not virtual:
        return ""
    if virtual == len(night.boards):
        return "virtual boards only: does not count as hardware"
    return f"{virtual} of {len(night.boards)} boards are virtual and do not count as hardware"


def _past_links(night_dir: Path, comparisons: tuple[Comparison, ...]) -> dict[str, str]:
    """Link earlier nights' reports that lie beside this one."""
    found = {}
    for one in comparisons:
        name = one.past.night_id
        url = local_link(name, REPORT_FOLDER, INDEX_NAME)
        if url is None or "/" in name:
            continue
        if (night_dir.resolve().parent / name / REPORT_FOLDER / INDEX_NAME).is_file():
            found[name] = f"../../{url}"
    return found


def _run_rows(night_dir: Path, runs: Runs) -> list[tuple[str, str | None, str]]:
    rows: list[tuple[str, str | None, str]] = []
    link = link_below(up=1)
    for folder, run in runs.by_folder.items():
        report = (night_dir / folder / RUN_REPORT_NAME).is_file()
        url = link(folder, RUN_REPORT_NAME if report else "run.json")
        rows.append((folder, url, f"{run.board}, {plural(len(run.cycles), 'cycle')}"))
    rows += [(folder, None, f"not read: {reason}") for folder, reason in runs.missing.items()]
    return rows


def _index(night_dir: Path, view: NightView, runs: Runs, asked: _Asked, matrix: Matrix) -> str:
    night = view.night
    stages, times = durations(view)
    return render(
        "night.html.j2",
        night=night,
        view=view,
        runs=_run_rows(night_dir, runs),
        missing=runs.missing,
        comparisons=asked.comparisons,
        past_links=_past_links(night_dir, asked.comparisons),
        trends=asked.trends,
        note=asked.note,
        headline=headline_of(view),
        counts=counts_text(view),
        virtual=_virtual_text(night),
        matrix=matrix,
        indexed=_indexed(night_dir),
        stages=stages,
        times=times,
        slowest=slowest(view),
        recoveries=[
            (run.board, recovery) for run in runs.by_folder.values() for recovery in run.recoveries
        ],
        cause_text=cause_text,
        failure_text=failure_text,
        places_text=places_text,
        plural=plural,
    )


def _cell_page(view: NightView, cell: Cell, folder: _Folder, chosen: set[int]) -> str:
    shown = [folder.shown(shot, full=id(shot) in chosen) for shot in cell.shots]
    order = {Verdict.FAIL: 0, Verdict.ERROR: 1, Verdict.SKIP: 2, Verdict.PASS: 3}
    shown.sort(key=lambda one: (not one.shot.night.counts, order[one.shot.verdict]))
    return render(
        "cell.html.j2",
        style_link=f"../{STYLE_NAME}",
        night=view.night,
        indexed=_indexed(folder.night_dir),
        cell=cell,
        shown=shown,
        sections=_MOST_SECTIONS,
        failure_text=failure_text,
        plural=plural,
        region_flags=region_flags,
    )


def _indexed(night_dir: Path) -> bool:
    """Whether the night lies among others; a copy of one elsewhere is left by itself."""
    return night_dir.resolve().parent.name == NIGHTS_FOLDER


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_night_report(night_dir: Path, history: History | None) -> Path:
    """Write the pages of the night in ``night_dir``, and the index of all nights if it is in one.

    Returns the path of the night's first page. ``history`` gives earlier nights and sizes; without
    it the nights beside this one are compared. Runs that cannot be read are named on the page.
    Raises UsageError when night.json cannot be read, BenchError (part ``disk``) when the pages
    cannot be written.
    """
    night = load_night(night_dir)
    runs = load_runs(night_dir, night)
    view = view_of(night, runs.by_folder)
    asked = _ask(night_dir, view, history)
    view = new_first(view, asked.comparisons)
    chosen = _choose(view)
    folder = _Folder(night_dir, runs)
    target = night_dir / REPORT_FOLDER
    made, old = night_dir / f".{REPORT_FOLDER}.part", night_dir / f".{REPORT_FOLDER}.old"
    try:
        for leftover in (made, old):
            shutil.rmtree(leftover, ignore_errors=True)
        (made / "cells").mkdir(parents=True)
        _write(made / STYLE_NAME, style())
        for cell in view.cells:
            _write(made / cell.page, _cell_page(view, cell, folder, chosen))
        _write(made / INDEX_NAME, _index(night_dir, view, runs, asked, matrix_of(view)))
        _write(made / SUMMARY_NAME, _summary(view, asked).model_dump_json(indent=1) + "\n")
        if target.exists():
            target.rename(old)
        made.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise BenchError(
            f"{target} cannot be written: {error.strerror}",
            part="disk",
            next_step="Make room; `farm report` writes the pages again from the night's folder.",
        ) from error
    if _indexed(night_dir):
        write_nights_index(night_dir.resolve().parent)
    return target / INDEX_NAME


def write_nights_index(nights_dir: Path) -> Path:
    """Write the index of all nights below ``nights_dir``, newest first, and return its path."""
    rows = []
    for folder, summary in summaries_of(nights_dir):
        there = (folder / REPORT_FOLDER / INDEX_NAME).is_file()
        url = local_link(folder.name, REPORT_FOLDER, INDEX_NAME) if there else None
        rows.append((folder.name, url, summary))
    path = nights_dir / INDEX_NAME
    replace_text(path, render("nights.html.j2", rows=rows, plural=plural))
    return path
