"""What a night is at now, put together from its folder; nothing is written, nobody is disturbed.

The journal tells what has happened, night.json what is left, live.json what is being done. Each is
there whoever wrote it last: a controller that runs, one that goes on with another's night, one that
was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import median

from pydantic import Field, ValidationError

from farm.errors import FarmError, UsageError
from farm.judge.night_folder import NIGHT_NAME, load_night
from farm.model import Frozen, Night, NightCell, NightCycle, Purpose, Verdict
from farm.nightly.journal import JOURNAL_NAME, read_journal
from farm.nightly.pulse import BEAT_S, PULSE_NAME, Pulse, SeatPulse, is_alive
from farm.nightly.state import NightState
from farm.nightly.trust import Rules

__all__ = [
    "OVER",
    "Aside",
    "BoardNow",
    "HoleNow",
    "NightNow",
    "NightWatch",
    "PlaceNow",
    "State",
    "newest",
]

NIGHTS = "nights"
NOT_REACHED = "not reached yet"
# A controller of another host is not seen: so long without a word, and it is taken for gone.
SILENT_S = 4 * BEAT_S
_LAST_CYCLES = 12
# Who is set aside is read from night.json.
_RULES = Rules(1, 1)
# Where nothing is known of a board's cycles yet; as the schedule has it.
_UNKNOWN_CYCLE_S = 30.0


class State(StrEnum):
    """How the night goes."""

    NOT_BEGUN = "not begun"
    RUNNING = "running"
    GONE = "controller gone"
    SILENT = "controller silent"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


# Nothing more will happen unless somebody takes the night up again.
OVER = frozenset({State.FINISHED, State.INTERRUPTED, State.GONE})


class BoardNow(Frozen):
    """A board, or a place that shares a board's cells; times are RFC 3339 and seconds.

    ``where`` is in the words of ``farm where``, empty where nobody knows. ``for_s`` is how long the
    cycle has taken so far, ``stage_s`` the stage, and ``late`` whether that is past its deadline.
    """

    name: str
    board: str
    virtual: bool = False
    where: str = ""
    doing: str = ""
    cell: NightCell | None = None
    attempt: int = 0
    training: bool = False
    stage: str = ""
    since: str = ""
    for_s: float | None = None
    stage_s: float | None = None
    deadline_s: float | None = None
    late: bool = False
    counts: dict[str, int] = Field(default={}, description="cycles by verdict")
    set_aside: str = ""


class Aside(Frozen):
    """A board that is not trusted."""

    name: str
    why: str


class HoleNow(Frozen):
    """How many cells will have no cycle, and why."""

    cells: int
    reason: str


class PlaceNow(Frozen):
    """A place as its coordinator tells of it; ``lacks`` is what no exporter offers for it."""

    name: str
    holder: str
    by_this_night: bool
    lacks: str
    tags: dict[str, str]


class NightNow(Frozen):
    """All that a live view shows; ``told`` says in a sentence how the night goes."""

    night_id: str
    folder: str
    plan: str
    state: State
    told: str
    at: str
    started: str
    spent_s: float
    budget_s: float | None
    cells: int
    done: int
    left: int
    left_s: float | None
    ends: str
    totals: dict[str, int]
    boards: tuple[BoardNow, ...]
    set_aside: tuple[Aside, ...]
    holes: tuple[HoleNow, ...]
    last: tuple[NightCycle, ...]
    coordinator: str = ""
    coordinator_says: str = ""
    places: tuple[PlaceNow, ...] = ()


def newest(path: Path) -> Path:
    """The folder of the night at ``path``: itself, or the newest below a reports folder.

    Raises UsageError when there is none.
    """
    if (path / JOURNAL_NAME).is_file():
        return path
    for nights in (path / NIGHTS, path):
        if nights.is_dir():
            found = [one for one in nights.iterdir() if (one / JOURNAL_NAME).is_file()]
            if found:
                return max(found, key=lambda one: one.name)
    raise UsageError(
        f"there is no night in {path}",
        "Name a night's folder, or the one that `farm nightly --out` makes nights in.",
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _since_s(moment: str, now: datetime) -> float | None:
    try:
        return max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return None


class NightWatch:
    """Looks at a night again and again; what has been read of its journal is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = NightState(_RULES)
        self._read_to = 0
        self._night: Night | None = None
        self._night_stamp: tuple[int, int] | None = None

    def look(self, now: datetime | None = None) -> NightNow:
        """What the night is at; raises UsageError for a folder whose journal is damaged."""
        moment = now or datetime.now(UTC)
        self._read_journal()
        night, pulse = self._read_night(), self._read_pulse()
        state = self._state
        kind, told = _how_it_goes(state, pulse, moment)
        open_cells = _open_cells(night, state)
        running = kind is State.RUNNING
        boards = self._boards(night, pulse, running, moment)
        spent_s = state.spent_s(_text(moment) if running else "")
        left_s = _left_s(open_cells, state.cycles, boards) if running else None
        budget_s = pulse.budget_s if pulse is not None else None
        if left_s is not None and budget_s is not None:
            left_s = min(left_s, max(0.0, budget_s - spent_s))
        cells = pulse.total_cells if pulse is not None else len(state.attempts) + len(open_cells)
        totals = Counter(tried[-1].verdict for tried in state.attempts.values())
        return NightNow(
            night_id=state.night_id or self.folder.name,
            folder=str(self.folder),
            plan=night.plan if night is not None else state.plan,
            state=kind,
            told=told,
            at=_text(moment),
            started=state.started,
            spent_s=round(spent_s, 1),
            budget_s=budget_s,
            cells=cells,
            done=len(state.attempts),
            left=len(open_cells),
            left_s=None if left_s is None else round(left_s, 1),
            ends="" if left_s is None else _text(moment + timedelta(seconds=left_s)),
            totals={one.value: totals[one] for one in Verdict},
            boards=boards,
            set_aside=tuple(Aside(name=name, why=why) for name, why in _aside(night).items()),
            holes=_holes(night, state),
            last=tuple(reversed(state.cycles[-_LAST_CYCLES:])),
        )

    def _read_journal(self) -> None:
        path = self.folder / JOURNAL_NAME
        try:
            if path.stat().st_size < self._read_to:
                self._state, self._read_to = NightState(_RULES), 0
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        entries, self._read_to = read_journal(path, self._read_to)
        for entry in entries:
            self._state.add(entry)

    def _read_night(self) -> Night | None:
        """night.json, read again when it was replaced; one that cannot be read is not there."""
        try:
            stat = (self.folder / NIGHT_NAME).stat()
            stamp = (stat.st_ino, stat.st_mtime_ns)
            if stamp != self._night_stamp:
                self._night, self._night_stamp = load_night(self.folder), stamp
        except (OSError, FarmError):
            return self._night
        return self._night

    def _read_pulse(self) -> Pulse | None:
        try:
            return Pulse.model_validate_json((self.folder / PULSE_NAME).read_bytes())
        except (OSError, ValidationError):
            return None

    def _boards(
        self, night: Night | None, pulse: Pulse | None, running: bool, now: datetime
    ) -> tuple[BoardNow, ...]:
        state = self._state
        board_of = {one.name: one.board for one in state.places.values()}
        virtual = {one.name: one.virtual for one in night.boards} if night is not None else {}
        seats = [one.seat for one in pulse.seats] if pulse is not None else []
        if not seats and night is not None:
            shared = set(board_of.values())
            seats = [*(b.name for b in night.boards if b.name not in shared), *board_of]
        doing = {one.seat: one for one in pulse.seats} if pulse is not None else {}
        aside = _aside(night)
        counts: dict[str, Counter[str]] = {}
        for cycle in state.cycles:
            counts.setdefault(cycle.seat, Counter())[cycle.verdict.value] += 1
        found = []
        for seat in dict.fromkeys([*seats, *counts]):
            board = board_of.get(seat, seat)
            begun = state.begun.get(seat)
            now_at = doing.get(seat)
            found.append(
                BoardNow(
                    name=seat,
                    board=board,
                    virtual=virtual.get(board, False),
                    counts=dict(counts.get(seat, {})),
                    set_aside=aside.get(seat, ""),
                    cell=begun.cell if begun is not None else None,
                    attempt=begun.attempt if begun is not None else 0,
                    training=begun is not None and begun.purpose is Purpose.TRAINING,
                )
            )
            if now_at is not None:
                found[-1] = found[-1].model_copy(update=_doing(now_at, running, now))
        return tuple(found)


def _doing(seat: SeatPulse, running: bool, now: datetime) -> dict[str, object]:
    """What live.json says of a seat; of one whose controller is gone, what it did last."""
    stage_s = _since_s(seat.stage_since, now) if running and seat.stage else None
    return {
        "where": seat.where if running else "",
        "doing": seat.doing,
        "stage": seat.stage,
        "since": seat.since,
        "for_s": _since_s(seat.since, now) if running else None,
        "stage_s": stage_s,
        "deadline_s": seat.deadline_s,
        "late": bool(stage_s is not None and seat.deadline_s and stage_s > seat.deadline_s),
    }


def _clock(moment: str) -> str:
    return moment[:19].replace("T", " ") + " UTC" if moment else "the beginning"


def _how_it_goes(state: NightState, pulse: Pulse | None, now: datetime) -> tuple[State, str]:
    closed = state.closed
    if closed is not None:
        if not closed.complete:
            return State.INTERRUPTED, (
                f"left at {_clock(closed.at)}: {closed.ended_early or 'interrupted'}; the same "
                "`farm nightly` goes on with it"
            )
        early = f": {closed.ended_early}" if closed.ended_early else ""
        return State.FINISHED, f"finished at {_clock(closed.at)}{early}"
    if pulse is None:
        if not state.night_id:
            return State.NOT_BEGUN, "its kernels are being made, or it was left before its first"
        return State.GONE, f"controller gone since {_clock(state.last_at)}, or never seen"
    alive, silent_s = is_alive(pulse), _since_s(pulse.at, now) or 0.0
    again = "; the same `farm nightly` goes on with it"
    if alive is False:
        return State.GONE, f"controller gone since {_clock(pulse.at)}{again}"
    if alive is None and silent_s > SILENT_S:
        where = f"controller on {pulse.host}"
        return State.SILENT, f"no word from the {where} since {_clock(pulse.at)}{again}"
    return State.RUNNING, f"running on {pulse.host}, process {pulse.pid}"


def _open_cells(night: Night | None, state: NightState) -> list[NightCell]:
    """What night.json counts as not reached, less what has been run since it was written."""
    if night is None:
        return []
    return [
        hole.cell
        for hole in night.holes
        if hole.reason == NOT_REACHED and hole.cell not in state.attempts
    ]


def _aside(night: Night | None) -> dict[str, str]:
    """Boards and places that are not trusted, and why; known as late as night.json is written."""
    if night is None:
        return {}
    aside = {one.name: one.set_aside for one in night.boards}
    aside |= {one.name: one.set_aside for one in night.places}
    return {name: why for name, why in aside.items() if why}


def _holes(night: Night | None, state: NightState) -> tuple[HoleNow, ...]:
    if night is None:
        return ()
    reasons = Counter(
        hole.reason
        for hole in night.holes
        if hole.reason != NOT_REACHED and hole.cell not in state.attempts
    )
    return tuple(HoleNow(cells=n, reason=reason) for reason, n in reasons.most_common())


def _left_s(
    cells: Sequence[NightCell], cycles: Sequence[NightCycle], boards: Sequence[BoardNow]
) -> float:
    """About how long the open cells take, boards side by side, each at its own median of tonight.

    A cell that is being run is open, and counted whole.
    """
    walls: dict[str, list[float]] = {}
    for cycle in cycles:
        walls.setdefault(cycle.cell.board, []).append(cycle.wall_s)
    everybody = [wall_s for of_board in walls.values() for wall_s in of_board]
    usual_s = median(everybody) if everybody else _UNKNOWN_CYCLE_S
    seats = Counter(one.board for one in boards if not one.set_aside)
    left: Mapping[str, int] = Counter(cell.board for cell in cells)
    return max(
        (
            -(-count // max(1, seats[board]))
            * (median(walls[board]) if board in walls else usual_s)
            for board, count in left.items()
        ),
        default=0.0,
    )
