"""What a live view says in words, the same on a terminal and on a page."""

from __future__ import annotations

from farm.model import NightCell, Verdict
from farm.report.printable import duration_text
from farm.top.view import BoardNow, NightNow

__all__ = ["board_text", "cell_text", "progress_text", "totals_text"]


def cell_text(cell: NightCell) -> str:
    """A cell in a few words, its board left out."""
    return f"{cell.scenario}, kernel {cell.kernel}, {'+'.join(cell.channels)}, no. {cell.repeat}"


def board_text(board: BoardNow) -> str:
    """What a board does."""
    if board.cell is None:
        return board.doing
    text = cell_text(board.cell)
    if board.training:
        return f"training: {text}"
    return f"{text}, attempt {board.attempt}" if board.attempt > 1 else text


def progress_text(night: NightNow) -> str:
    """How far the night is, and when it will end."""
    text = f"{night.done} of {night.cells} cells done, {night.left} left, after "
    text += duration_text(night.spent_s)
    if night.budget_s is not None:
        text += f" of {duration_text(night.budget_s)}"
    if night.left_s is not None:
        text += f"; about {duration_text(night.left_s)} more, until {night.ends[11:16]} UTC"
    return text


def totals_text(night: NightNow) -> str:
    """The verdicts so far."""
    said = [
        f"{night.totals[one.value]} {one.value}" for one in Verdict if night.totals.get(one.value)
    ]
    return ", ".join(said) or "no verdict yet"
