"""Which cycle a board runs next: pure.

Every cell once before any is repeated. Among those, first what failed last time or has changed
lately, then what nobody knows anything of, then what passed. Boards begin at different scenarios,
so that a short night sees more of them; a board changes its kernel only where the rest is equal.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from farm.bench.features import missing_bench
from farm.bench.options import BenchOptions
from farm.model import NightCell, NightCycle, NightHole, Purpose, Verdict
from farm.nightly.journal import Entry, Finished
from farm.nightly.state import NightState, replay
from farm.nightly.trust import Rules, Trust
from farm.run.channels import features_needed
from farm.scenarios import Scenario

__all__ = ["Knowledge", "Past", "Schedule", "Start", "expand", "urgency"]

# A cycle that nobody has run before; a flash is counted with the first cycle of its kernel.
UNKNOWN_CYCLE_S = 30.0
FLASH_S = 30.0
# A worker that ended twice in the same cycle would end a third time.
DEATHS = 2

Known = tuple[str, str, str, tuple[str, ...]]
# A scenario with a set of channels.
Thing = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Past:
    """What earlier nights say of a cell, whatever its repeat: verdicts newest first, seconds."""

    verdicts: tuple[str, ...]
    wall_s: float


Knowledge = Mapping[Known, Past]


@dataclass(frozen=True)
class Start:
    """A cycle to run; ``place`` is where, if places share the cells."""

    cell: NightCell
    attempt: int
    purpose: Purpose
    place: str = ""

    @property
    def seat(self) -> str:
        """Where: the place, or the board that has its cells to itself."""
        return self.place or self.cell.board


def known(cell: NightCell) -> Known:
    """A cell as history knows it."""
    return cell.kernel, cell.board, cell.scenario, tuple(sorted(cell.channels))


def urgency(past: Past | None) -> int:
    """0 failed last time, 1 changed lately, 2 nothing known, 3 passed again and again."""
    if past is None or not past.verdicts or past.verdicts[0] == Verdict.ERROR:
        return 2
    if past.verdicts[0] == Verdict.FAIL:
        return 0
    return 1 if len(set(past.verdicts)) > 1 else 3


def impossible(
    board: BenchOptions, scenario: Scenario, channels: tuple[str, ...]
) -> tuple[str, ...]:
    """What a board lacks for a scenario that is read by these channels."""
    lacking = {*missing_bench(scenario, board), *features_needed(channels) - board.features}
    return tuple(sorted(lacking))


def expand(
    kernels: Sequence[str],
    boards: Sequence[BenchOptions],
    scenarios: Sequence[Scenario],
    channels: Sequence[tuple[str, ...]],
    repeats: int,
) -> tuple[list[NightCell], list[NightHole]]:
    """All cells of a plan, and those that a board cannot do, with what it lacks."""
    cells: list[NightCell] = []
    holes: list[NightHole] = []
    for board in boards:
        for kernel in kernels:
            for scenario in scenarios:
                for wanted in channels:
                    lacking = impossible(board, scenario, wanted)
                    for repeat in range(1, repeats + 1):
                        cell = NightCell(
                            kernel=kernel,
                            board=board.board,
                            scenario=scenario.name,
                            channels=wanted,
                            repeat=repeat,
                        )
                        if lacking:
                            reason = f"the board has no {', '.join(lacking)}"
                            holes.append(NightHole(cell=cell, reason=reason))
                        else:
                            cells.append(cell)
    return cells, holes


@dataclass
class Schedule:
    """The cells of a night, and what is to be run next; asks only its arguments.

    A board's cells are run at its seats: at itself, or at the places that share them. ``seats``
    tells each seat's board, ``unable`` what a seat cannot do and another of its board can.
    """

    cells: Sequence[NightCell]
    retries: int
    budget_s: float | None
    training_scenario: str
    flash_s: float = FLASH_S
    knowledge: Knowledge = field(default_factory=dict)
    seats: Mapping[str, str] = field(default_factory=dict)
    unable: Mapping[str, Collection[Thing]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kernels = list(dict.fromkeys(cell.kernel for cell in self.cells))
        boards = list(dict.fromkeys(cell.board for cell in self.cells))
        self._kernels = kernels
        if not self.seats:
            self.seats = {board: board for board in boards}
        self._seats_of: dict[str, list[str]] = {board: [] for board in boards}
        for seat, board in self.seats.items():
            self._seats_of.setdefault(board, []).append(seat)
        self._by_board: dict[str, list[NightCell]] = {board: [] for board in boards}
        for cell in self.cells:
            self._by_board[cell.board].append(cell)
        self._place: dict[NightCell, tuple[int, int, int, int]] = {}
        for at, board in enumerate(boards):
            own = self._by_board[board]
            things = list(dict.fromkeys((cell.scenario, cell.channels) for cell in own))
            # Board n of m begins n/m of the way through.
            shift = at * len(things) // len(boards)
            for cell in own:
                turn = (things.index((cell.scenario, cell.channels)) - shift) % len(things)
                self._place[cell] = (
                    cell.repeat,
                    urgency(self.knowledge.get(known(cell))),
                    kernels.index(cell.kernel),
                    turn,
                )

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards that have cells."""
        return tuple(self._by_board)

    def seats_of(self, board: str) -> tuple[str, ...]:
        """Where the board's cells are run."""
        return tuple(self._seats_of[board])

    def estimate_s(self, cell: NightCell, current: str | None) -> float:
        """About how long a cycle takes, flashing included."""
        past = self.knowledge.get(known(cell))
        seconds = past.wall_s if past and past.wall_s > 0 else UNKNOWN_CYCLE_S
        return seconds + (self.flash_s if current != cell.kernel else 0.0)

    def is_open(self, cell: NightCell, state: NightState) -> bool:
        """Whether the cell still wants a cycle."""
        if state.deaths[cell] >= DEATHS or self._skipped(cell, state):
            return False
        tried = state.attempts.get(cell, [])
        if not tried:
            return True
        return tried[-1].verdict is Verdict.ERROR and len(tried) <= self.retries

    def _skipped(self, cell: NightCell, state: NightState) -> str:
        """Why an earlier repeat was not possible on this board."""
        for repeat in range(1, cell.repeat):
            tried = state.attempts.get(cell.model_copy(update={"repeat": repeat}))
            if tried and tried[-1].verdict is Verdict.SKIP:
                return tried[-1].why
        return ""

    def next_for(
        self,
        seat: str,
        state: NightState,
        current: str | None,
        spent_s: float,
        busy: Collection[NightCell] = (),
    ) -> Start | None:
        """The seat's next cycle; ``current`` is the kernel that it has now.

        ``busy`` are cells that are being run at other seats.
        """
        board = self.seats[seat]
        left_s = None if self.budget_s is None else self.budget_s - spent_s
        if state.trust.get(seat, Trust()).set_aside:
            return self._training(seat, state, current, left_s)
        unable = self.unable.get(seat, ())
        open_cells = [
            cell
            for cell in self._by_board.get(board, ())
            if cell not in busy
            and (cell.scenario, cell.channels) not in unable
            and self.is_open(cell, state)
        ]
        # A controller that goes on keeps the order that the one before it had.
        liked = current or state.last_kernel.get(seat)

        def rank(cell: NightCell) -> tuple[bool, int, int, bool, int, int]:
            repeat, urgent, kernel, turn = self._place[cell]
            first_try = cell not in state.attempts
            return first_try, repeat, urgent, cell.kernel != liked, kernel, turn

        if left_s is not None:
            open_cells = [one for one in open_cells if self.estimate_s(one, current) <= left_s]
        cell = min(open_cells, key=rank, default=None)
        if cell is None:
            return None
        attempt = len(state.attempts.get(cell, ())) + 1
        return Start(cell, attempt, Purpose.PLAN, self._place_of(seat))

    def _place_of(self, seat: str) -> str:
        return "" if self.seats[seat] == seat else seat

    def _training(
        self, seat: str, state: NightState, current: str | None, left_s: float | None
    ) -> Start | None:
        """A training cycle for a seat that was set aside before this night."""
        board = self.seats[seat]
        set_aside_tonight = any(
            cycle.seat == seat and cycle.purpose is Purpose.PLAN for cycle in state.cycles
        )
        if set_aside_tonight or state.failed_trainings[seat]:
            return None
        if not any(self.is_open(cell, state) for cell in self._by_board.get(board, ())):
            return None
        cell = NightCell(
            kernel=current or state.last_kernel.get(seat, self._kernels[0]),
            board=board,
            scenario=self.training_scenario,
            channels=("pstorefs",),
            repeat=state.trainings[seat] + 1,
        )
        if left_s is not None and self.estimate_s(cell, current) > left_s:
            return None
        return Start(cell, 1, Purpose.TRAINING, self._place_of(seat))

    def holes(self, state: NightState, *, over: str) -> list[NightHole]:
        """The cells without a cycle; ``over`` is why those that might have been run were not."""
        found = []
        for cell in self.cells:
            if state.attempts.get(cell):
                continue
            trusts = [state.trust.get(seat, Trust()) for seat in self._seats_of[cell.board]]
            if state.deaths[cell] >= DEATHS:
                reason = f"the board's worker ended {DEATHS} times: {state.why_died[cell]}"
            elif skipped := self._skipped(cell, state):
                reason = f"not possible when it was tried: {skipped}"
            elif trusts and all(trust.set_aside for trust in trusts):
                reason = f"the board was set aside: {trusts[0].set_aside}"
            else:
                reason = over
            found.append(NightHole(cell=cell, reason=reason))
        return found

    def duration_s(self, starts: Sequence[tuple[float, Start]]) -> float:
        """How long what `preview` returned takes, in seconds."""
        ends = dict.fromkeys(self.seats, 0.0)
        current: dict[str, str] = {}
        for begin_s, start in starts:
            seat = start.seat
            ends[seat] = begin_s + self.estimate_s(start.cell, current.get(seat))
            current[seat] = start.cell.kernel
        return max(ends.values(), default=0.0)

    def preview(self, entries: Sequence[Entry], rules: Rules) -> list[tuple[float, Start]]:
        """What would be run after ``entries`` if every cycle passed, and when, in seconds."""
        found: list[tuple[float, Start]] = []
        state = replay(entries, rules)
        begin = state.spent_s()
        order = list(self.seats)
        current: dict[str, str] = {}
        running: dict[str, Start] = {}
        free = [(0.0, at) for at in range(len(order))]
        while free:
            now, at = heapq.heappop(free)
            seat = order[at]
            if seat in running:
                state.add(_passed(running.pop(seat)))
            busy = {start.cell for start in running.values()}
            start = self.next_for(seat, state, current.get(seat), begin + now, busy)
            if start is None:
                continue
            found.append((now, start))
            running[seat] = start
            heapq.heappush(free, (now + self.estimate_s(start.cell, current.get(seat)), at))
            current[seat] = start.cell.kernel
        return found


def _passed(start: Start) -> Finished:
    cycle = NightCycle(
        cell=start.cell,
        place=start.place,
        attempt=start.attempt,
        purpose=start.purpose,
        counts=True,
        run="runs/none",
        number=1,
        started="",
        wall_s=0.0,
        verdict=Verdict.PASS,
        blame=None,
        why="",
    )
    return Finished(at="", cycle=cycle)
