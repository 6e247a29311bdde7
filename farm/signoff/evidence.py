"""The cycles that clauses cite, copied into the bundle and judged again from their captures.

Each run becomes a folder that `farm judge` and `farm report` read: ``run.json`` with the cited
cycles only, their console logs and captures, and ``report.html``. A capture that is too large
to copy is named with its sha256.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import FarmError
from farm.export.names import slug
from farm.judge.run_folder import (
    INPUT_NAME,
    RESULT_NAME,
    checked,
    inside,
    judge_cycle_folder,
    load_run,
    replace_text,
)
from farm.judge.totals import summarise
from farm.model import Capture, Cycle, Run
from farm.report import report_html
from farm.signoff.facts import Fact
from farm.signoff.manifest import allowed_name

__all__ = ["EVIDENCE", "CitedCycle", "copy_evidence"]

EVIDENCE = "evidence"
_LARGEST_BYTES = 64 << 20
_CONSOLE_NAMES = ("console.log", "console.raw")


@dataclass(frozen=True, slots=True)
class CitedCycle:
    """A cited cycle: where its evidence lies in the bundle, or why it cannot be had."""

    fact: Fact
    page: str = ""
    captures: int = 0
    captures_bytes: int = 0
    left_out: tuple[str, ...] = ()
    problem: str = ""
    farm_version: str = ""


def _copy_capture(folder: Path, to: Path, number: int, one: Capture) -> tuple[Capture, str]:
    """The capture as the bundle has it, and what to say where it was not copied."""
    source = inside(folder, one.path)
    if one.size_bytes > _LARGEST_BYTES:
        return one, f"{one.path}: {one.size_bytes} B, sha256 {one.sha256}"
    path = one.path if allowed_name(one.path) else f"captures/{number:04d}.bin"
    data = checked(one, source.read_bytes())
    (to / path).parent.mkdir(parents=True, exist_ok=True)
    (to / path).write_bytes(data)
    return one.model_copy(update={"path": path}), ""


def _copy_cycle(run_folder: Path, to: Path, cycle: Cycle) -> tuple[Cycle, tuple[str, ...]]:
    """Copy a cycle below ``to``; raises FarmError or OSError when its evidence is not whole."""
    folder = inside(run_folder, cycle.folder)
    name = f"cycles/{cycle.number:04d}"
    (to / name).mkdir(parents=True)
    captures, left_out = [], []
    for number, one in enumerate(cycle.input.captures, 1):
        capture, said = _copy_capture(folder, to / name, number, one)
        captures.append(capture)
        left_out += [said] if said else []
    given = cycle.input.model_copy(update={"captures": tuple(captures)})
    for console in _CONSOLE_NAMES:
        source = inside(folder, console)
        if source.is_file() and source.stat().st_size <= _LARGEST_BYTES:
            shutil.copyfile(source, to / name / console)
    replace_text(to / name / INPUT_NAME, given.model_dump_json(indent=1) + "\n")
    replace_text(to / name / RESULT_NAME, cycle.result.model_dump_json(indent=1) + "\n")
    return cycle.model_copy(update={"folder": name, "input": given}), tuple(left_out)


def _wrong(fact: Fact, cycle: Cycle, run: Run, folder: Path) -> str:
    """What of the stored cycle is not as the fact says; empty: nothing."""
    build = (cycle.input.manifest.build_id if cycle.input.manifest else None) or run.build_id
    if cycle.result.verdict is not fact.verdict:
        return (
            f"its run says {cycle.result.verdict.value}, the sign-off counted {fact.verdict.value}"
        )
    if build and fact.build_id and build != fact.build_id:
        return f"its run is of build {build}"
    if not fact.virtual and (run.virtual or cycle.input.virtual):
        return "its run is of a virtual board"
    if (cycle.scenario, run.board) != (fact.scenario, fact.board):
        return f"its run says {cycle.scenario} on {run.board}"
    _, again = judge_cycle_folder(inside(folder, cycle.folder), cycle.input)
    if again.verdict is not fact.verdict:
        return f"judged again from its captures it is {again.verdict.value}: {again.why}"
    return ""


def _said(error: FarmError | OSError) -> str:
    return error.message if isinstance(error, FarmError) else str(error)


def _copy_run(facts: list[Fact], to: Path, name: str, done: Callable[[], None]) -> list[CitedCycle]:
    folder = facts[0].run
    try:
        if folder is None:
            raise FileNotFoundError("the run's folder is not known")
        run = load_run(folder)
    except (FarmError, OSError) as error:
        return [CitedCycle(one, problem=_said(error)) for one in facts]
    by_number = {cycle.number: cycle for cycle in run.cycles}
    cited, copied = [], []
    for fact in sorted(facts, key=lambda one: one.number):
        cycle = by_number.get(fact.number)
        place = to / f"cycles/{fact.number:04d}"
        try:
            if cycle is None:
                raise FileNotFoundError(f"its run has no cycle {fact.number}")
            problem = _wrong(fact, cycle, run, folder)
            inner, left_out = _copy_cycle(folder, to, cycle)
        except (FarmError, OSError) as error:
            shutil.rmtree(place, ignore_errors=True)
            cited.append(CitedCycle(fact, problem=_said(error)))
        else:
            copied.append(inner)
            cited.append(
                CitedCycle(
                    fact,
                    page=f"{EVIDENCE}/{name}/report.html#cycle-{fact.number}",
                    captures=len(cycle.input.captures),
                    captures_bytes=sum(one.size_bytes for one in cycle.input.captures),
                    left_out=left_out,
                    problem=problem,
                    farm_version=run.farm_version,
                )
            )
        done()
    if copied:
        verdict, totals = summarise(one.result.verdict for one in copied)
        part = run.model_copy(
            update={
                "cycles": tuple(copied),
                "verdict": verdict,
                "totals": totals,
                "planned_cycles": len(copied),
                "recoveries": (),
            }
        )
        replace_text(to / "run.json", part.model_dump_json(indent=1) + "\n")
        replace_text(to / "report.html", report_html(part))
    return cited


def copy_evidence(
    facts: Iterable[Fact], bundle: Path, done: Callable[[], None] = lambda: None
) -> list[CitedCycle]:
    """Copy the evidence of ``facts`` into ``bundle``; ``done`` is called after each cycle.

    What cannot be had, or does not bear out the fact, is said in `CitedCycle.problem`. Raises
    OSError only when ``bundle`` cannot be written.
    """
    by_run: dict[tuple[str, Path | None], list[Fact]] = {}
    for one in facts:
        by_run.setdefault((one.run_id, one.run), []).append(one)
    cited = []
    for number, ((run_id, _), found) in enumerate(by_run.items()):
        name = (
            slug(run_id)
            if len({key for key in by_run if key[0] == run_id}) == 1
            else (f"{slug(run_id)}_{number}")
        )
        cited += _copy_run(found, bundle / EVIDENCE / name, name, done)
    return cited
