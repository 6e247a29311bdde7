"""The sign-off as a page, for a browser and for paper: no script, nothing loaded from anywhere.

Look, escaping and rules are those of `farm.report.pages`; `farm.signoff.printer` makes the PDF from
the same page. Links lead to the files beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from farm.report.pages import environment
from farm.report.printable import visible
from farm.signoff.clauses import Cell, Decision
from farm.signoff.evidence import CitedCycle
from farm.signoff.policy import SignoffPolicy
from farm.signoff.provenance import Hash

__all__ = ["Page", "page_html"]

_BOUNDS_SHOWN = 40


@dataclass(frozen=True)
class Page:
    """All that a page shows."""

    policy: SignoffPolicy
    decision: Decision
    cited: Sequence[CitedCycle]
    hashes: Sequence[Hash]
    tools: dict[str, str]
    source: str
    made: datetime
    signed_by: str


@dataclass(frozen=True)
class _Grid:
    """The required cells of one board: scenarios by channels."""

    board: str
    channels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def _grids(cells: Sequence[Cell]) -> list[_Grid]:
    grids = []
    for board in dict.fromkeys(cell.board for cell in cells):
        of_board = {(cell.scenario, cell.channel): cell for cell in cells if cell.board == board}
        channels = tuple(dict.fromkeys(channel for _, channel in of_board))
        scenarios = dict.fromkeys(scenario for scenario, _ in of_board)
        rows = tuple(
            (name, tuple(of_board.get((name, channel)) for channel in channels))
            for name in scenarios
        )
        grids.append(_Grid(board, channels, rows))
    return grids


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _growth(largest: int, baseline: int | None) -> str:
    if not baseline:
        return "new"
    return f"{100 * (largest - baseline) / baseline:+.1f} %"


def page_html(page: Page) -> str:
    """Write the page as one self-contained HTML document."""
    bounds = page.decision.bounds
    template = environment("farm.signoff").get_template("signoff.html.j2")
    return template.render(
        page=page,
        policy=page.policy,
        decision=page.decision,
        rule=[visible(line) for line in page.policy.rule.strip().splitlines()],
        grids=_grids(page.decision.cells),
        pages={one.fact.id: one.page for one in page.cited},
        growth=_growth,
        rate=_percent,
        bounds=bounds[:_BOUNDS_SHOWN],
        more_bounds=max(0, len(bounds) - _BOUNDS_SHOWN),
    )
