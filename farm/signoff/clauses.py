"""The policy's clauses, one by one, held against the facts; pure: no file, no clock.

A clause is met when it has no problem that is not waived. A waiver never changes a number: cycles
that failed count in the failure rate whether or not somebody forgave them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase

from farm.model import Verdict
from farm.signoff.bound import cycles_needed, upper_bound
from farm.signoff.facts import DeviceFact, DeviceTotal, Fact, Facts
from farm.signoff.policy import SignoffPolicy, Waiver

__all__ = [
    "GO",
    "NO_GO",
    "VIRTUAL_GO",
    "Cell",
    "Clause",
    "Decision",
    "DeviceSize",
    "Problem",
    "RateBound",
    "decide",
    "waived",
]

GO = "GO"
NO_GO = "NO-GO"
VIRTUAL_GO = "GO (VIRTUAL ONLY, not hardware)"
PARTLY_VIRTUAL_GO = "GO (PARTLY VIRTUAL, not hardware)"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that stands against a clause; ``waiver`` is what forgives it."""

    clause: str
    what: str
    board: str | None = None
    scenario: str | None = None
    channel: str | None = None
    driver: str | None = None
    waiver: Waiver | None = None
    cited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause: what it asks, what was found, what stands against it, which cycles show it."""

    name: str
    asks: str
    found: str
    problems: tuple[Problem, ...] = ()
    cited: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether nothing stands against it that is not waived."""
        return all(one.waiver is not None for one in self.problems)

    @property
    def word(self) -> str:
        """What the table says of it."""
        if not self.met:
            return "NOT MET"
        return "WAIVED" if self.problems else "MET"


@dataclass(frozen=True, slots=True)
class Cell:
    """A required scenario on a board by a channel ("" for any): how often it was judged."""

    board: str
    scenario: str
    channel: str
    wanted: int
    passed: int
    failed: int
    errors: int
    skipped: int
    cited: str = ""

    @property
    def hole(self) -> bool:
        """Whether it was judged less often than wanted."""
        return self.passed + self.failed < self.wanted


@dataclass(frozen=True, slots=True)
class DeviceSize:
    """A device's largest record, its budget and what it was in the baseline; bytes."""

    driver: str
    device: str
    largest: int
    budget: int | None
    baseline: int | None


@dataclass(frozen=True, slots=True)
class RateBound:
    """What the repeats support: a rate above ``bound`` is excluded with ``confidence``."""

    what: str
    cycles: int
    failures: int
    bound: float
    confidence: float


@dataclass
class Decision:
    """All that was decided, and from what; ``evidence`` problems are added later."""

    label: str
    today: date
    build_ids: tuple[str, ...]
    releases: tuple[str, ...]
    clauses: list[Clause]
    cells: tuple[Cell, ...]
    sizes: tuple[DeviceSize, ...]
    bounds: tuple[RateBound, ...]
    unused_waivers: tuple[Waiver, ...]
    expired_waivers: tuple[Waiver, ...]
    counted: tuple[Fact, ...]
    virtual: bool
    not_counted: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def go(self) -> bool:
        """Whether every clause is met."""
        return self.label != NO_GO

    def conclude(self, *, any_hardware: bool) -> None:
        """Set the label from the clauses."""
        if not all(clause.met for clause in self.clauses):
            self.label = NO_GO
        elif self.virtual:
            self.label = PARTLY_VIRTUAL_GO if any_hardware else VIRTUAL_GO
        else:
            self.label = GO

    @property
    def any_hardware(self) -> bool:
        """Whether a cycle that counts comes from a real board."""
        return any(not one.virtual for one in self.counted)

    def cited_ids(self) -> list[str]:
        """Every cycle that a clause cites, in the order of the clauses."""
        ids = [
            one
            for clause in self.clauses
            for one in (*clause.cited, *(cited for p in clause.problems for cited in p.cited))
        ]
        return list(dict.fromkeys(ids))


def _matches(pattern: str, row: DeviceFact | DeviceTotal) -> bool:
    return fnmatchcase(row.driver, pattern) or fnmatchcase(row.device, pattern)


def waived(problems: Iterable[Problem], waivers: Sequence[Waiver], today: date) -> list[Problem]:
    """Each problem with the waiver that names exactly it and has not expired, if there is one."""
    known: dict[tuple[str | None, ...], Waiver] = {}
    for one in waivers:
        if one.expires >= today:
            known.setdefault((one.clause, one.board, one.scenario, one.channel, one.driver), one)
    return [
        replace(
            one,
            waiver=known.get((one.clause, one.board, one.scenario, one.channel, one.driver)),
        )
        for one in problems
    ]


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _kernel_words(policy: SignoffPolicy) -> str:
    kernel = policy.kernel
    said = [f"build id {kernel.build_id}"] if kernel.build_id else []
    return ", ".join([*said, f"release {kernel.release}"] if kernel.release else said)


def _kernel(
    policy: SignoffPolicy,
    facts: Sequence[Fact],
    all_facts: Facts,
    artifacts: Mapping[str, str],
) -> Clause:
    builds = sorted({one.build_id for one in facts})
    problems = []
    if not builds:
        problems.append(Problem("kernel", "no cycle of this kernel was run: nothing to judge"))
    elif len(builds) > 1:
        problems.append(
            Problem(
                "kernel",
                f"{len(builds)} builds call themselves so: {', '.join(builds[:10])}"
                f"{' and others' if len(builds) > 10 else ''}; none of them counts until build_id "
                "names the one that is signed off",
            )
        )
    problems += [
        Problem(
            "kernel", f"nights tell {len(values)} different hashes of its {name} ({build[:12]})"
        )
        for build in builds
        for name, values in sorted(all_facts.hashes.get(build, {}).items())
        if len(values) > 1
    ]
    problems += [
        Problem("kernel", f"the policy's {name} is not the one that the nights ran")
        for build in builds
        for name, values in sorted(all_facts.hashes.get(build, {}).items())
        if name in artifacts and artifacts[name] not in values
    ]
    problems += [
        Problem("kernel", f"{name}, which has results of it, cannot be read: {why}")
        for name, why in all_facts.unreadable.items()
        if not all_facts.unreadable_builds.get(name, set()).isdisjoint(builds)
    ]
    others = len(all_facts.cycles) - len(facts)
    found = f"{len(facts)} cycles of build {', '.join(builds[:3]) or 'none'}"
    if others:
        found += f"; {others} cycles of other builds were seen and do not count"
    return Clause("kernel", f"exactly this kernel: {_kernel_words(policy)}", found, tuple(problems))


def _hardware(policy: SignoffPolicy, facts: Sequence[Fact]) -> Clause:
    virtual = [one for one in facts if one.virtual]
    real = len(facts) - len(virtual)
    if policy.allow_virtual:
        found = f"{real} cycles on hardware, {len(virtual)} on virtual boards, which count here"
        return Clause("hardware", "virtual boards are allowed; a GO then says so", found)
    asks = "hardware only: results of virtual boards never count"
    found = f"{real} cycles on hardware; {len(virtual)} on virtual boards, which do not count"
    problems: tuple[Problem, ...] = ()
    if not real:
        problems = (Problem("hardware", "no cycle was run on hardware"),)
    return Clause("hardware", asks, found, problems)


def _cells(policy: SignoffPolicy, counted: Sequence[Fact]) -> tuple[Cell, ...]:
    wanted: dict[tuple[str, str, str], int] = {}
    for block in policy.required:
        for board in block.boards:
            for scenario in block.scenarios:
                for channel in block.channels or ("",):
                    key = (board, scenario, channel)
                    wanted[key] = max(wanted.get(key, 0), block.repeats)
    counts: dict[tuple[str, str, str], Counter[Verdict]] = defaultdict(Counter)
    newest: dict[tuple[str, str, str], Fact] = {}
    for one in counted:
        for channel in ("", *one.channels):
            key = (one.board, one.scenario, channel)
            if key in wanted:
                counts[key][one.verdict] += 1
                if one.verdict is Verdict.PASS and (
                    key not in newest or newest[key].started < one.started
                ):
                    newest[key] = one
    return tuple(
        Cell(
            *key,
            wanted=number,
            passed=counts[key][Verdict.PASS],
            failed=counts[key][Verdict.FAIL],
            errors=counts[key][Verdict.ERROR],
            skipped=counts[key][Verdict.SKIP],
            cited=newest[key].id if key in newest else "",
        )
        for key, number in wanted.items()
    )


def _coverage(cells: Sequence[Cell]) -> Clause:
    problems = []
    for cell in cells:
        if not cell.hole:
            continue
        judged = cell.passed + cell.failed
        what = f"judged {judged} of {cell.wanted} times"
        if cell.errors:
            what += f"; the bench failed {cell.errors} times"
        if cell.skipped:
            what += f"; not possible there {cell.skipped} times"
        problems.append(Problem("coverage", what, cell.board, cell.scenario, cell.channel or None))
    full = sum(not cell.hole for cell in cells)
    return Clause(
        "coverage",
        f"{len(cells)} cells of board, scenario and channel, judged as often as wanted",
        f"{full} of {len(cells)} cells are full, {len(problems)} are holes",
        tuple(problems),
        tuple(dict.fromkeys(cell.cited for cell in cells if cell.cited)),
    )


def _failures(counted: Sequence[Fact], judged: int) -> Clause:
    failed: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
    for one in counted:
        if one.verdict is Verdict.FAIL:
            failed[one.board, one.scenario, one.driver].append(one)
    problems = tuple(
        Problem(
            "failures",
            f"failed {len(cycles)} times, last: {cycles[-1].why}",
            board,
            scenario,
            driver=driver or None,
            cited=tuple(one.id for one in cycles[-3:]),
        )
        for (board, scenario, driver), cycles in failed.items()
    )
    if not judged:
        problems = (Problem("failures", "no cycle was judged"),)
    found = f"{sum(map(len, failed.values()))} of {judged} judged cycles failed"
    return Clause("failures", "no cycle in which the kernel failed", found, problems)


@dataclass(frozen=True)
class _Devices:
    """The devices of the cycles that count: totals, and where to ask for details."""

    facts: Facts
    counted: Mapping[str, Fact]
    totals: Sequence[DeviceTotal]

    def cited(self, total: DeviceTotal) -> tuple[str, ...]:
        """The cycle in which a device was as large as its total says."""
        return (self.facts.cycle_with(self.counted, total).id,)


def _drivers(policy: SignoffPolicy, devices: _Devices) -> Clause:
    cells = {
        (board, scenario)
        for block in policy.required
        for board in block.boards
        for scenario in block.scenarios
    }
    judged: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for one in devices.counted.values():
        if one.judged and (one.board, one.scenario) in cells:
            judged[one.board, one.scenario].append(one)
    totals: dict[tuple[str, str], list[DeviceTotal]] = defaultdict(list)
    for total in devices.totals:
        if total.fact.judged:
            totals[total.fact.board, total.fact.scenario].append(total)
    missing: list[Problem] = []
    wrong: list[Problem] = []
    arrived: Counter[str] = Counter()
    for cell, cycles in judged.items():
        for pattern in policy.drivers:
            found = [total for total in totals[cell] if _matches(pattern, total)]
            there: Counter[tuple[str, str]] = Counter()
            for total in found:
                there[total.driver, total.device] += total.cycles
            absent = cycles
            bad: list[tuple[Fact, str]] = []
            if len(cycles) in there.values() and not any(total.bad for total in found):
                absent = []
            elif found:
                absent, bad = _one_by_one(devices.facts, cycles, pattern)
            arrived[pattern] += len(cycles) - len(absent) - len(bad)
            if absent:
                what = f"not there in {len(absent)} cycles"
                cited = (absent[-1].id,)
                missing.append(Problem("drivers", what, *cell, driver=pattern, cited=cited))
            if bad:
                what = f"did not arrive intact in {len(bad)} cycles, last: {bad[-1][1]}"
                cited = (bad[-1][0].id,)
                wrong.append(Problem("drivers", what, *cell, driver=pattern, cited=cited))
    problems = [*missing, *wrong]
    problems += [
        Problem("drivers", "never seen", driver=pattern)
        for pattern in policy.drivers
        if not arrived[pattern] and not any(one.driver == pattern for one in problems)
    ]
    return Clause(
        "drivers",
        f"in every judged cycle of a required cell, registered and intact: "
        f"{', '.join(policy.drivers)}",
        ", ".join(f"{pattern} in {arrived[pattern]} cycles" for pattern in policy.drivers),
        tuple(problems),
    )


def _one_by_one(
    facts: Facts, cycles: Sequence[Fact], pattern: str
) -> tuple[list[Fact], list[tuple[Fact, str]]]:
    """The cycles that have no such device, and those in which one is not intact, with why."""
    absent: list[Fact] = []
    bad: list[tuple[Fact, str]] = []
    for one, rows in facts.devices(cycles):
        found = [row for row in rows if _matches(pattern, row)]
        if not found:
            absent.append(one)
        elif why := next((row.why for row in found if row.verdict is not Verdict.PASS), ""):
            bad.append((one, why))
    absent.sort(key=lambda one: one.started)
    return absent, bad


# The largest record of each device, by driver and device.
_Largest = dict[tuple[str, str], DeviceTotal]


def _largest(totals: Iterable[DeviceTotal]) -> _Largest:
    largest: _Largest = {}
    for one in totals:
        key = (one.driver, one.device)
        if one.largest_bytes > (largest[key].largest_bytes if key in largest else 0):
            largest[key] = one
    return largest


def _budget_of(policy: SignoffPolicy, driver: str, device: str) -> int | None:
    row = DeviceFact(device, driver, 0, Verdict.PASS, "")
    return min(
        (size for pattern, size in policy.budget_bytes.items() if _matches(pattern, row)),
        default=None,
    )


def _budget(policy: SignoffPolicy, devices: _Devices, largest: _Largest) -> Clause:
    worst: dict[str, tuple[int, DeviceTotal]] = {}
    checked = set()
    for one in devices.totals:
        if _budget_of(policy, one.driver, one.device) is not None:
            checked.add(one.driver)
    for (driver, device), one in largest.items():
        budget = _budget_of(policy, driver, device)
        if budget is not None and one.largest_bytes > budget:
            over = one.largest_bytes - budget
            if driver not in worst or over > worst[driver][0]:
                worst[driver] = (over, one)
    found = [
        Problem(
            "budget",
            f"{one.device}: a record of {one.largest_bytes} B, {over} B above "
            f"{one.largest_bytes - over} B",
            driver=driver,
            cited=devices.cited(one),
        )
        for driver, (over, one) in worst.items()
    ]
    asks = [f"{pattern} at most {size} B" for pattern, size in policy.budget_bytes.items()]
    said = f"{len(checked)} drivers checked"
    if (total := policy.total_budget_bytes) is not None:
        asks.append(f"all records together at most {total} B")
        if most := devices.facts.most_used(devices.counted):
            used, cycle = most
            said += f"; the most that all records used is {used} B"
            if used > total:
                what = f"all records together use {used} B, more than {total} B"
                found.append(Problem("budget", what, cited=(cycle.id,)))
    return Clause("budget", "; ".join(asks), said, tuple(found))


def _growth(
    policy: SignoffPolicy, devices: _Devices, largest: _Largest, before: _Largest
) -> Clause:
    growth = policy.growth
    assert growth is not None
    limits = []
    if growth.max_percent is not None:
        limits.append(f"{growth.max_percent:g} %")
    if growth.max_bytes is not None:
        limits.append(f"{growth.max_bytes} B")
    baseline = growth.baseline.release or growth.baseline.build_id
    asks = f"no device's largest record grows by more than {' or '.join(limits)} against {baseline}"
    if not before:
        problem = Problem("growth", f"there are no results of the baseline {baseline}")
        return Clause("growth", asks, "nothing to compare with", (problem,))
    problems = []
    for (driver, device), one in sorted(largest.items(), key=lambda item: item[0]):
        if (driver, device) not in before:
            continue
        size, was = one.largest_bytes, before[driver, device].largest_bytes
        grown = size - was
        over_percent = growth.max_percent is not None and 100 * grown > growth.max_percent * was
        over_bytes = growth.max_bytes is not None and grown > growth.max_bytes
        if over_percent or over_bytes:
            what = f"{device}: {was} B became {size} B: {grown} B or {100 * grown / was:.1f} % more"
            problems.append(Problem("growth", what, driver=driver, cited=devices.cited(one)))
    new = sorted({device for _, device in set(largest) - set(before)})
    found = f"{len(set(largest) & set(before))} devices compared"
    if new:
        found += f"; new since the baseline: {', '.join(new)}"
    return Clause("growth", asks, found, tuple(problems))


def _bounds(counted: Sequence[Fact], confidence: float) -> tuple[RateBound, ...]:
    """What the repeats support over all scenarios, then for each."""
    judged = Counter(one.scenario for one in counted if one.judged)
    failed = Counter(one.scenario for one in counted if one.verdict is Verdict.FAIL)

    def bound(what: str, failures: int, cycles: int) -> RateBound:
        supported = upper_bound(failures, cycles, confidence)
        return RateBound(what, cycles, failures, supported, confidence)

    return (
        bound("all judged cycles", failed.total(), judged.total()),
        *(
            bound(name, failed[name], judged[name])
            for name in sorted({c.scenario for c in counted})
        ),
    )


def _failure_rate(policy: SignoffPolicy, total: RateBound) -> Clause:
    rate = policy.failure_rate
    assert rate is not None
    asks = f"a failure rate below {_percent(rate.max)}, with {100 * rate.confidence:g} % confidence"
    found = (
        f"{total.failures} failures in {total.cycles} judged cycles exclude rates above "
        f"{_percent(total.bound)}"
    )
    if total.bound <= rate.max:
        return Clause("failure-rate", asks, found)
    needed = cycles_needed(rate.max, rate.confidence)
    what = f"the repeats bound the rate at {_percent(total.bound)} only"
    if not total.failures:
        what += f"; {needed} cycles without a failure are needed"
    return Clause("failure-rate", asks, found, (Problem("failure-rate", what),))


def _bench_errors(policy: SignoffPolicy, attempts: Sequence[Fact]) -> Clause:
    limit = policy.bench_errors
    assert limit is not None
    errors = [one for one in attempts if one.verdict is Verdict.ERROR]
    rate = len(errors) / len(attempts) if attempts else 0.0
    asks = f"the bench failed in at most {_percent(limit.max_rate)} of all cycles, retried ones too"
    found = f"{len(errors)} of {len(attempts)} cycles: {_percent(rate)}"
    problems: tuple[Problem, ...] = ()
    if rate > limit.max_rate or not attempts:
        problems = (Problem("bench-errors", found, cited=tuple(one.id for one in errors[-5:])),)
    return Clause("bench-errors", asks, found, problems)


def _waivers(policy: SignoffPolicy, today: date) -> tuple[Clause, tuple[Waiver, ...]]:
    expired = tuple(one for one in policy.waivers if one.expires < today)
    problems = tuple(
        Problem(
            "waivers",
            f"the waiver of {one.owner} for {one.clause} expired on {one.expires}: {one.reason}",
            one.board,
            one.scenario,
            one.channel,
            one.driver,
        )
        for one in expired
    )
    asks = "every waiver has an owner, a reason and a day that is still to come"
    return Clause(
        "waivers", asks, f"{len(policy.waivers)} waivers, {len(expired)} expired", problems
    ), (expired)


def _is_eligible(policy: SignoffPolicy, one: Fact, *, attempts: bool = False) -> bool:
    return (
        (policy.allow_virtual or not one.virtual) and not one.training and (attempts or one.counts)
    )


def _eligible(
    policy: SignoffPolicy, facts: Iterable[Fact], *, attempts: bool = False
) -> list[Fact]:
    return [one for one in facts if _is_eligible(policy, one, attempts=attempts)]


def _not_counted(policy: SignoffPolicy, facts: Sequence[Fact]) -> tuple[str, ...]:
    said = []
    if not policy.allow_virtual and (virtual := [one for one in facts if one.virtual]):
        failed = sum(one.verdict is Verdict.FAIL for one in virtual)
        said.append(f"{len(virtual)} cycles on virtual boards ({failed} of them FAIL)")
    if training := sum(one.training for one in facts):
        said.append(f"{training} training cycles")
    if retried := sum(not one.counts and not one.training for one in facts):
        said.append(f"{retried} attempts that were retried after an ERROR")
    return tuple(said)


def decide(
    policy: SignoffPolicy, facts: Facts, today: date, artifacts: Mapping[str, str] | None = None
) -> Decision:
    """Hold the policy against the facts; ``today`` decides which waivers still hold.

    ``artifacts`` are the sha256 of the policy's files, by name.
    """
    of_kernel = facts.of(policy.kernel)
    # Of several builds it is not known which one is meant: none of them counts.
    meant = of_kernel if len({one.build_id for one in of_kernel}) == 1 else []
    counted = sorted(_eligible(policy, meant), key=lambda one: one.started)
    attempts = _eligible(policy, meant, attempts=True)
    needs_devices = bool(
        policy.drivers or policy.budget_bytes or policy.total_budget_bytes or policy.growth
    )
    totals = facts.device_totals(policy.kernel) if needs_devices and meant else []
    devices = _Devices(
        facts,
        {one.id: one for one in counted},
        [one for one in totals if _is_eligible(policy, one.fact)],
    )
    largest = _largest(devices.totals)
    before: _Largest = {}
    if policy.growth is not None:
        baseline = facts.device_totals(policy.growth.baseline)
        before = _largest(one for one in baseline if _is_eligible(policy, one.fact))
    confidence = policy.failure_rate.confidence if policy.failure_rate else 0.95
    bounds = _bounds(counted, confidence)
    cells = _cells(policy, counted)

    clauses = [
        _kernel(policy, of_kernel, facts, artifacts or {}),
        _hardware(policy, of_kernel),
        _coverage(cells),
        _failures(counted, bounds[0].cycles),
    ]
    if policy.drivers:
        clauses.append(_drivers(policy, devices))
    if policy.budget_bytes or policy.total_budget_bytes is not None:
        clauses.append(_budget(policy, devices, largest))
    if policy.growth is not None:
        clauses.append(_growth(policy, devices, largest, before))
    if policy.failure_rate is not None:
        clauses.append(_failure_rate(policy, bounds[0]))
    if policy.bench_errors is not None:
        clauses.append(_bench_errors(policy, attempts))
    waivers, expired = _waivers(policy, today)
    clauses.append(waivers)

    clauses = [
        replace(one, problems=tuple(waived(one.problems, policy.waivers, today))) for one in clauses
    ]
    used = {id(problem.waiver) for clause in clauses for problem in clause.problems}
    decision = Decision(
        label=NO_GO,
        today=today,
        build_ids=tuple(sorted({one.build_id for one in of_kernel})),
        releases=tuple(sorted({one.release for one in of_kernel})),
        clauses=clauses,
        cells=cells,
        sizes=tuple(
            DeviceSize(
                driver,
                device,
                one.largest_bytes,
                _budget_of(policy, driver, device),
                before[driver, device].largest_bytes if (driver, device) in before else None,
            )
            for (driver, device), one in sorted(largest.items(), key=lambda item: item[0])
        ),
        bounds=bounds,
        unused_waivers=tuple(
            one for one in policy.waivers if id(one) not in used and one not in expired
        ),
        expired_waivers=expired,
        counted=tuple(counted),
        virtual=policy.allow_virtual and (not counted or any(one.virtual for one in counted)),
        not_counted=_not_counted(policy, of_kernel),
    )
    decision.conclude(any_hardware=decision.any_hardware)
    return decision
