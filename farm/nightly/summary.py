"""A night in a few lines, for a terminal or a log; the pages tell the rest."""

from __future__ import annotations

import json
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.model import Night, Purpose, Verdict
from farm.nightly.live import cell_text, span_text
from farm.nightly.night import Preview
from farm.report.printable import visible

__all__ = ["print_night", "print_preview"]

_SHOWN = 20


def print_night(night: Night) -> None:
    """Print what came of a night: the worst first, then what was not run, and why."""
    console = Console(soft_wrap=True, highlight=False)
    totals = ", ".join(
        f"{night.totals[one.value]} {one.value}" for one in Verdict if night.totals.get(one.value)
    )
    virtual = ", virtual boards do not count as hardware" if _virtual(night) else ""
    console.print(
        f"{night.verdict.value}: night {night.night_id} of {escape(visible(night.plan))}: "
        f"{totals or 'no cycle'}, {span_text(night.wall_s)}{virtual}"
    )
    for wanted in (Verdict.FAIL, Verdict.ERROR):
        said = Counter(
            (cycle.cell.kernel, cycle.cell.scenario, cycle.why)
            for cycle in night.cycles
            if cycle.counts and cycle.verdict is wanted
        )
        for (kernel, scenario, why), count in said.most_common(_SHOWN):
            times = f" ({count} cycles)" if count > 1 else ""
            console.print(
                f"  {wanted.value} {escape(visible(f'{kernel} {scenario}: {why}'))}{times}"
            )
        if len(said) > _SHOWN:
            console.print(f"  ... and {len(said) - _SHOWN} more that are {wanted.value}")
    retried = sum(not c.counts and c.purpose is Purpose.PLAN for c in night.cycles)
    if retried:
        console.print(f"  {retried} attempts ended in ERROR and were retried")
    for board in night.boards:
        if board.set_aside:
            console.print(f"  {escape(visible(f'{board.name} is set aside: {board.set_aside}'))}")
    for place in night.places:
        if place.told:
            words = f"{place.name}: {len(place.told)} times something came between, the last: "
            console.print(f"  {escape(visible(words + place.told[-1]))}")
    for reason, count in Counter(hole.reason for hole in night.holes).most_common(_SHOWN):
        console.print(f"  {count} cells without a cycle: {escape(visible(reason))}")
    if night.interrupted:
        console.print("  interrupted: the same command goes on with it")


def _virtual(night: Night) -> bool:
    return any(board.virtual for board in night.boards)


def print_preview(preview: Preview, *, as_json: bool) -> None:
    """Print what a night would run."""
    if as_json:
        starts = [
            {
                "at_s": round(begin, 1),
                **start.cell.model_dump(mode="json"),
                "place": start.place,
                "attempt": start.attempt,
                "purpose": start.purpose.value,
            }
            for begin, start in preview.starts
        ]
        holes = [hole.model_dump(mode="json") for hole in preview.holes]
        print(
            json.dumps(
                {
                    "resumed": preview.resumed,
                    "duration_s": round(preview.duration_s, 1),
                    "cycles": starts,
                    "holes": holes,
                },
                indent=1,
            )
        )
        return
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("after", "board", "cycle", ""):
        table.add_column(column)
    for begin, start in preview.starts:
        purpose = "training" if start.purpose is Purpose.TRAINING else ""
        table.add_row(span_text(begin), escape(start.seat), escape(cell_text(start.cell)), purpose)
    console.print(table)
    for said in preview.said:
        console.print(escape(visible(said)), soft_wrap=True)
    for reason, count in Counter(hole.reason for hole in preview.holes).most_common():
        console.print(f"{count} cells are holes: {escape(reason)}", soft_wrap=True)
    words = f"{len(preview.starts)} cycles, about {span_text(preview.duration_s)}"
    if preview.resumed:
        words += f", going on with the night {preview.resumed}"
    console.print(words, soft_wrap=True)
