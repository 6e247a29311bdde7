"""The matrix of a night: scenarios down, boards, channels and kernels across, holes and all."""

from __future__ import annotations

from dataclasses import dataclass

from farm.model import Verdict
from farm.report.night_view import Cell, CellKey, NightView

__all__ = ["Column", "Matrix", "MatrixRow", "matrix_of"]

# Rows that passed everywhere are folded when there are more rows than that.
_MOST_ROWS = 25


@dataclass(frozen=True, slots=True)
class Column:
    """A board with a set of channels and a kernel."""

    board: str
    virtual: bool
    channels: tuple[str, ...]
    kernel: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A scenario; a cell is None where the plan has none."""

    scenario: str
    cells: tuple[Cell | None, ...]

    @property
    def clean(self) -> bool:
        """Whether every repeat of it passed everywhere."""
        return all(
            cell is None or (cell.verdict is Verdict.PASS and not cell.holes) for cell in self.cells
        )


@dataclass(frozen=True, slots=True)
class Matrix:
    """``groups`` are boards with how many columns they span; ``folded`` rows passed everywhere."""

    columns: tuple[Column, ...]
    groups: tuple[tuple[str, bool, int], ...]
    rows: tuple[MatrixRow, ...]
    folded: tuple[MatrixRow, ...]
    several_channels: bool
    several_kernels: bool


def _columns(view: NightView) -> tuple[Column, ...]:
    virtual = {cell.key.board: cell.virtual for cell in view.cells}
    boards = [one.name for one in view.night.boards if one.name in virtual]
    boards += sorted(set(virtual) - set(boards))
    kernels = [one.name for one in view.night.kernels]
    found = {(cell.key.board, cell.key.channels, cell.key.kernel) for cell in view.cells}
    kernels += sorted({kernel for _, _, kernel in found} - set(kernels))
    ordered = sorted(found, key=lambda one: (boards.index(one[0]), one[1], kernels.index(one[2])))
    return tuple(Column(board, virtual[board], ch, kernel) for board, ch, kernel in ordered)


def matrix_of(view: NightView) -> Matrix:
    """Lay the cells out; rows keep the plan's order."""
    columns = _columns(view)
    scenarios = dict.fromkeys(cell.key.scenario for cell in view.cells)
    rows = tuple(
        MatrixRow(
            scenario,
            tuple(
                view.by_key.get(CellKey(one.kernel, one.board, scenario, one.channels))
                for one in columns
            ),
        )
        for scenario in scenarios
    )
    groups: list[tuple[str, bool, int]] = []
    for one in columns:
        if groups and groups[-1][0] == one.board:
            groups[-1] = (one.board, one.virtual, groups[-1][2] + 1)
        else:
            groups.append((one.board, one.virtual, 1))
    fold = len(rows) > _MOST_ROWS
    return Matrix(
        columns=columns,
        groups=tuple(groups),
        rows=tuple(row for row in rows if not (fold and row.clean)),
        folded=tuple(row for row in rows if fold and row.clean),
        several_channels=len({one.channels for one in columns}) > 1,
        several_kernels=len({one.kernel for one in columns}) > 1,
    )
