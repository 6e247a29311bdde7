"""The live view as a page: static, read-only, in the reports' style; it loads itself again.

A page cannot be told to stop loading itself without a script, so there are two: one that does, and
one that does not, each linking the other. Nothing of what it shows can be acted on from it.
"""

from __future__ import annotations

from pathlib import Path

from farm.judge.run_folder import replace_text
from farm.report.pages import local_link, render
from farm.top.view import NightNow
from farm.top.words import board_text, cell_text, progress_text, totals_text

__all__ = ["REFRESH_S", "page", "still_name", "write_pages"]

REFRESH_S = 5


def still_name(name: str) -> str:
    """The name of the page that does not load itself again."""
    path = Path(name)
    return f"{path.stem}-still{path.suffix}"


def page(night: NightNow, *, refresh_s: int | None, other: str, interval_s: int) -> str:
    """The page; ``other`` is the link to the one that does, or does not, load itself again."""
    return render(
        "top.html.j2",
        night=night,
        refresh_s=refresh_s,
        interval_s=interval_s,
        other=other,
        board_text=board_text,
        cell_text=cell_text,
        progress=progress_text(night),
        totals=totals_text(night),
    )


def write_pages(night: NightNow, file: Path, interval_s: int) -> None:
    """Replace both pages; raises BenchError (part ``disk``)."""
    still = file.with_name(still_name(file.name))
    pairs = ((file, interval_s, still.name), (still, None, file.name))
    for path, refresh_s, other in pairs:
        link = local_link(other) or ""
        replace_text(path, page(night, refresh_s=refresh_s, other=link, interval_s=interval_s))
