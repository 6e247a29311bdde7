"""What was run, as a sign-off sees it: one fact per cycle, from folders of nights and runs.

The build that a cycle counts for is the one that the live board said it runs; a night's or a run's
word counts only where the cycle has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from farm.errors import UsageError
from farm.history import CycleRow, History
from farm.judge.night_folder import NIGHT_NAME, load_kernels, load_night, load_runs
from farm.judge.run_folder import RUN_NAME, inside, load_run
from farm.model import Cycle, Night, Purpose, Run, Verdict
from farm.signoff.policy import KernelIdentity

__all__ = ["DeviceFact", "DeviceTotal", "Fact", "Facts", "HistoryFacts", "facts_of_folder"]


# Asking the enumeration takes as long as all the rest of a fact.
_VERDICTS = {one.value: one for one in Verdict}
_JUDGED = (Verdict.PASS, Verdict.FAIL)


class Fact(NamedTuple):
    """One cycle; ``run`` is its run's folder, None where that is not known."""

    id: str
    run_id: str
    run: Path | None
    number: int
    night_id: str
    started: str
    release: str
    build_id: str
    board: str
    virtual: bool
    scenario: str
    channels: frozenset[str]
    repeat: int
    counts: bool
    training: bool
    verdict: Verdict
    why: str
    driver: str
    device: str
    used_bytes: int

    @property
    def judged(self) -> bool:
        """Whether it says anything about the kernel."""
        return self.verdict in _JUDGED


@dataclass(frozen=True, slots=True)
class DeviceFact:
    """One device of a cycle."""

    device: str
    driver: str
    record_bytes: int
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class DeviceTotal:
    """A device over all cycles that are alike; ``fact`` is one of them, ``cycles`` have it.

    Alike are cycles of one build, release, board, scenario, purpose and verdict; ``bad`` is how
    often the device is not PASS in them.
    """

    fact: Fact
    driver: str
    device: str
    cycles: int
    bad: int
    largest_bytes: int


@dataclass
class Facts:
    """All facts at hand, and what could not be read; made by one of the loaders."""

    source: str
    cycles: list[Fact] = field(default_factory=list)
    device_rows: dict[str, tuple[DeviceFact, ...]] = field(default_factory=dict)
    hashes: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    unreadable_builds: dict[str, set[str]] = field(default_factory=dict)

    def of(self, kernel: KernelIdentity) -> list[Fact]:
        """The cycles of ``kernel``; one without a build id is nobody's."""
        return [
            one
            for one in self.cycles
            if one.build_id
            and (kernel.build_id is None or one.build_id == kernel.build_id)
            and (kernel.release is None or one.release == kernel.release)
        ]

    def devices(self, facts: Iterable[Fact]) -> Iterator[tuple[Fact, tuple[DeviceFact, ...]]]:
        """Each cycle with its devices."""
        for one in facts:
            yield one, self.device_rows.get(one.id, ())

    def device_totals(self, kernel: KernelIdentity) -> list[DeviceTotal]:
        """The devices of all cycles of ``kernel``, counted."""
        totals: dict[tuple[object, ...], DeviceTotal] = {}
        for one, rows in self.devices(self.of(kernel)):
            where = (one.build_id, one.release, one.board, one.virtual, one.scenario)
            alike = (*where, one.counts, one.training, one.verdict)
            seen: set[tuple[str, str]] = set()
            for row in rows:
                first = (row.driver, row.device) not in seen
                seen.add((row.driver, row.device))
                key = (*alike, row.driver, row.device)
                known = totals.get(key) or DeviceTotal(one, row.driver, row.device, 0, 0, 0)
                totals[key] = replace(
                    known,
                    cycles=known.cycles + first,
                    bad=known.bad + (row.verdict is not Verdict.PASS),
                    largest_bytes=max(known.largest_bytes, row.record_bytes),
                )
        return list(totals.values())

    def cycle_with(self, facts: Mapping[str, Fact], total: DeviceTotal) -> Fact:
        """The first of ``facts``, by their ids, in which the device is as large as in ``total``."""
        return next(
            one
            for one, rows in self.devices(facts.values())
            for row in rows
            if (row.driver, row.device, row.record_bytes)
            == (total.driver, total.device, total.largest_bytes)
        )

    def most_used(self, facts: Mapping[str, Fact]) -> tuple[int, Fact] | None:
        """The most bytes that all records of one of ``facts`` used together, and which it is."""
        return max(
            (
                (max(one.used_bytes, sum(row.record_bytes for row in rows)), one)
                for one, rows in self.devices(facts.values())
            ),
            key=lambda found: found[0],
            default=None,
        )

    def add_hashes(self, build_id: str, sha256: Mapping[str, str]) -> None:
        """Note what a night says of a build's hashes; nights that differ are both kept."""
        # A kernel built for boards of several kinds is known by all its build ids.
        for one in build_id.split(","):
            for name, value in sha256.items():
                self.hashes.setdefault(one, {}).setdefault(name, set()).add(value)


def _headline(cycle: Cycle) -> tuple[str, str]:
    for finding in cycle.result.findings:
        if finding.verdict is cycle.result.verdict and (finding.driver or finding.device):
            return finding.driver or "", finding.device or ""
    return "", ""


def _add_run(
    facts: Facts, folder: Path | None, run: Run, night: Night | None, name: str = ""
) -> None:
    by_number = {one.number: one for one in night.cycles if one.run == name} if night else {}
    kernels = {one.name: one for one in night.kernels} if night else {}
    virtual_boards = {one.name for one in night.boards if one.virtual} if night else set()
    for cycle in run.cycles:
        in_night = by_number.get(cycle.number)
        if night is not None and in_night is None:
            continue
        manifest = cycle.input.manifest
        planned = kernels.get(in_night.cell.kernel) if in_night else None
        build = (manifest.build_id if manifest else None) or run.build_id
        driver, device = _headline(cycle)
        fact = Fact(
            id=f"{run.run_id}#{cycle.number}",
            run_id=run.run_id,
            run=folder,
            number=cycle.number,
            night_id=night.night_id if night else "",
            started=cycle.started,
            release=(manifest.kernel_release if manifest else None) or run.kernel_release or "",
            build_id=build or (planned.build_id if planned else None) or "",
            board=run.board,
            virtual=run.virtual or cycle.input.virtual or run.board in virtual_boards,
            scenario=cycle.scenario,
            channels=frozenset(
                [
                    *(read.channel for read in cycle.input.channels),
                    *(capture.channel for capture in cycle.input.captures),
                ]
            ),
            repeat=cycle.repeat,
            counts=in_night.counts if in_night else True,
            training=in_night is not None and in_night.purpose is Purpose.TRAINING,
            verdict=cycle.result.verdict,
            why=cycle.result.why,
            driver=driver,
            device=device,
            used_bytes=cycle.result.used_bytes,
        )
        facts.cycles.append(fact)
        rows = tuple(
            DeviceFact(row.device, row.driver, row.record_bytes, row.verdict, row.why)
            for row in cycle.result.devices
        )
        facts.device_rows.setdefault(fact.id, rows)


def _add_stored(facts: Facts, night: Night, runs: Mapping[str, Run]) -> None:
    """Cycles whose run cannot be read: the night's own account of them."""
    kernels = {one.name: one for one in night.kernels}
    virtual = {one.name: one.virtual for one in night.boards}
    for one in night.cycles:
        if one.run in runs:
            continue
        kernel = kernels.get(one.cell.kernel)
        facts.cycles.append(
            Fact(
                id=f"{night.night_id}/{one.run}#{one.number}",
                run_id=one.run,
                run=None,
                number=one.number,
                night_id=night.night_id,
                started=one.started,
                release=(kernel.release if kernel else None) or "",
                build_id=(kernel.build_id if kernel else None) or "",
                board=one.cell.board,
                virtual=virtual.get(one.cell.board, True),
                scenario=one.cell.scenario,
                channels=frozenset(one.cell.channels),
                repeat=one.cell.repeat,
                counts=one.counts,
                training=one.purpose is Purpose.TRAINING,
                verdict=one.verdict,
                why=one.why,
                driver="",
                device="",
                used_bytes=0,
            )
        )


def _add_night(facts: Facts, folder: Path) -> set[Path]:
    night = load_night(folder)
    found = load_runs(folder, night)
    runs, unreadable = found.by_folder, found.missing
    builds = {one for kernel in night.kernels for one in (kernel.build_id or "").split(",")}
    for name, why in unreadable.items():
        facts.unreadable[f"{night.night_id}/{name}"] = why
        facts.unreadable_builds[f"{night.night_id}/{name}"] = builds
    for kernel in night.kernels:
        if kernel.build_id:
            facts.add_hashes(kernel.build_id, kernel.sha256)
    for name, run in runs.items():
        _add_run(facts, folder / name, run, night, name)
    _add_stored(facts, night, runs)
    return {(folder / name).resolve() for name in night.runs}


def _folders(root: Path) -> Iterator[Path]:
    yield root
    for pattern in ("*", "nights/*", "*/nights/*", "*/runs/*", "nights/*/runs/*"):
        yield from sorted(path for path in root.glob(pattern) if path.is_dir())


def _once(facts: Facts) -> None:
    """Keep each cycle once; two that call themselves alike and differ hide nothing."""
    kept: dict[str, Fact] = {}
    for one in facts.cycles:
        first = kept.setdefault(one.id, one)
        if (first.verdict, first.build_id, first.board, first.scenario) != (
            (one.verdict, one.build_id, one.board, one.scenario)
        ):
            facts.unreadable[one.id] = "two runs call themselves so, and differ"
            facts.unreadable_builds[one.id] = {first.build_id, one.build_id}
    facts.cycles = list(kept.values())


def facts_of_folder(root: Path) -> Facts:
    """The facts of all nights and runs below ``root``: one of them, or a folder of many.

    What cannot be read is kept by name. Raises UsageError when ``root`` is no folder.
    """
    if not root.is_dir():
        raise UsageError(
            f"{root} is no folder", "Name the folder that `farm nightly` or `farm run` wrote to."
        )
    facts = Facts(source=str(root))
    folders = list(dict.fromkeys(_folders(root)))
    seen: set[Path] = set()
    for folder in folders:
        if (folder / NIGHT_NAME).is_file():
            try:
                seen |= _add_night(facts, folder)
            except UsageError as error:
                facts.unreadable[str(folder)] = error.message
    for folder in folders:
        if folder.resolve() not in seen and (folder / RUN_NAME).is_file():
            try:
                _add_run(facts, folder, load_run(folder), None)
            except UsageError as error:
                facts.unreadable[str(folder)] = error.message
    # One run may lie in two places; it was still run once.
    _once(facts)
    return facts


def _hashes_of_nights(facts: Facts, root: Path, night_ids: Iterable[str]) -> None:
    """Take the kernels' hashes from the nights' own files, as far as these are at hand."""
    for night_id in night_ids:
        try:
            kernels = load_kernels(inside(root / "nights", night_id))
        except UsageError:
            continue
        for kernel in kernels:
            if kernel.build_id:
                facts.add_hashes(kernel.build_id, kernel.sha256)


def _folder_of(root: Path, path: str) -> Path | None:
    try:
        return inside(root, path)
    except UsageError:
        return None


def _fact_of_row(row: CycleRow, folder: Path | None, channels: frozenset[str]) -> Fact:
    return Fact(
        id=f"{row.run_id}#{row.number}",
        run_id=row.run_id,
        run=folder,
        number=row.number,
        night_id=row.night_id or "",
        started=row.started,
        release=row.release or "",
        build_id=row.build_id or "",
        board=row.board,
        virtual=row.virtual,
        scenario=row.scenario,
        channels=channels,
        repeat=row.repeat,
        counts=row.counts,
        training=row.purpose == Purpose.TRAINING.value,
        verdict=_VERDICTS[row.verdict],
        why=row.why,
        driver=row.finding_driver or "",
        device=row.finding_device or "",
        used_bytes=row.used_bytes,
    )


class HistoryFacts(Facts):
    """The facts that a history holds of some kernels; the runs' folders lie below ``root``."""

    def __init__(self, history: History, root: Path, kernels: Sequence[KernelIdentity]) -> None:
        super().__init__(source=f"history, runs below {root}")
        self._history = history
        self._ids: dict[str, int] = {}
        self._by_row: dict[int, Fact] = {}
        # The database counts while Python makes facts of rows: each takes half of the time.
        builds = dict.fromkeys(one.build_id for one in kernels if one.build_id is not None)
        pool = ThreadPoolExecutor(max_workers=1)
        self._counted = {one: pool.submit(history.device_totals, build_ids=[one]) for one in builds}
        pool.shutdown(wait=False)
        folders: dict[str, Path | None] = {}
        channels: dict[str, frozenset[str]] = {}
        for kernel in kernels:
            asked = None if kernel.build_id is None else [kernel.build_id]
            for row in history.cycles(build_ids=asked, counting_only=False):
                if kernel.release is not None and row.release != kernel.release:
                    continue
                if row.path not in folders:
                    folders[row.path] = _folder_of(root, row.path)
                if row.channels not in channels:
                    channels[row.channels] = frozenset(filter(None, row.channels.split(",")))
                fact = _fact_of_row(row, folders[row.path], channels[row.channels])
                if fact.id not in self._ids:
                    self._ids[fact.id] = row.id
                    self._by_row[row.id] = fact
                    self.cycles.append(fact)
        _hashes_of_nights(self, root, dict.fromkeys(one.night_id for one in self.cycles))

    def devices(self, facts: Iterable[Fact]) -> Iterator[tuple[Fact, tuple[DeviceFact, ...]]]:
        """Each cycle with its devices, asked for at once."""
        by_id = {self._ids[one.id]: one for one in facts}
        rows = groupby(self._history.devices(by_id), key=lambda row: row.cycle_id)
        for cycle_id, devices in rows:
            yield (
                by_id.pop(cycle_id),
                tuple(
                    DeviceFact(
                        row.device, row.driver, row.record_bytes, Verdict(row.verdict), row.why
                    )
                    for row in devices
                ),
            )
        for one in by_id.values():
            yield one, ()

    def device_totals(self, kernel: KernelIdentity) -> list[DeviceTotal]:
        """As of any facts; the history counts."""
        if kernel.build_id in self._counted:
            found = self._counted[kernel.build_id].result()
        else:
            builds = {one.build_id for one in self.of(kernel)}
            found = self._history.device_totals(build_ids=builds) if builds else []
        totals = [(self._by_row.get(one.cycle_id), one) for one in found]
        return [
            DeviceTotal(fact, one.driver, one.device, one.cycles, one.bad, one.largest_bytes)
            for fact, one in totals
            if fact is not None and (kernel.release is None or fact.release == kernel.release)
        ]

    def cycle_with(self, facts: Mapping[str, Fact], total: DeviceTotal) -> Fact:
        """As of any facts."""
        rows = self._history.cycles_with(
            total.driver, total.device, total.largest_bytes, build_ids=[total.fact.build_id]
        )
        found = (self._by_row.get(row) for row in rows)
        return next(one for one in found if one is not None and one.id in facts)

    def most_used(self, facts: Mapping[str, Fact]) -> tuple[int, Fact] | None:
        """As of any facts."""
        said = [(one.used_bytes, one) for one in facts.values()]
        builds = {one.build_id for one in facts.values()}
        for row, size in self._history.records_bytes(build_ids=builds) if builds else ():
            fact = self._by_row.get(row)
            if fact is not None and fact.id in facts:
                said.append((size, fact))
                break
        return max(said, key=lambda found: found[0], default=None)
