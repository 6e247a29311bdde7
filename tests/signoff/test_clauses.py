"""Each clause met and not met, and what a waiver, a virtual board or another build changes."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from farm.errors import UsageError
from farm.model import Purpose, Run, Verdict
from farm.signoff.bound import cycles_needed, upper_bound
from farm.signoff.clauses import GO, NO_GO, VIRTUAL_GO, Decision, Problem, decide, waived
from farm.signoff.facts import Facts, facts_of_folder
from farm.signoff.policy import SignoffPolicy, Waiver, policy_schema, read_policy
from tests.export.nights import night
from tests.signoff.runs import BUILD, POLICY_TEXT, TODAY, policy, write_run

OTHER = "11" * 20


def decided(root: Path, rule: SignoffPolicy | None = None) -> Decision:
    return decide(rule or policy(), facts_of_folder(root), TODAY)


def open_clauses(decision: Decision) -> set[str]:
    return {one.name for one in decision.clauses if not one.met}


def problem(decision: Decision, clause: str) -> Problem:
    (found,) = next(one for one in decision.clauses if one.name == clause).problems
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write_run(root / "run-1")
    return root


def test_all_clauses_met_is_a_go(good: Path) -> None:
    decision = decided(good)
    assert decision.label == GO
    assert not decision.virtual
    assert [one.word for one in decision.clauses] == ["MET"] * len(decision.clauses)


@pytest.mark.parametrize(
    ("changes", "clauses"),
    [
        ({"kernel": {"build_id": OTHER}}, {"kernel", "hardware", "coverage", "failures"}),
        ({"kernel": {"build_id": BUILD, "release": "6.1"}}, {"kernel"}),
        (
            {"required": [{"boards": ["board"], "scenarios": ["sysrq-c"], "repeats": 4}]},
            {"coverage"},
        ),
        ({"required": [{"boards": ["other"], "scenarios": ["sysrq-c"]}]}, {"coverage", "drivers"}),
        (
            {"required": [{"boards": ["board"], "scenarios": ["lkdtm-bug"]}]},
            {"coverage", "drivers"},
        ),
        (
            {"required": [{"boards": ["board"], "scenarios": ["sysrq-c"], "channels": ["sahara"]}]},
            {"coverage"},
        ),
        ({"drivers": ["panel-simple", "gpu"]}, {"drivers"}),
        ({"budget_bytes": {"panicdump-sample": 500}}, {"budget"}),
        ({"total_budget_bytes": 1}, {"budget"}),
        ({"growth": {"baseline": {"build_id": OTHER}, "max_bytes": 1}}, {"growth"}),
        ({"failure_rate": {"max": 0.5}}, {"failure-rate"}),
        ({"failure_rate": {"max": 0.5, "confidence": 0.8}}, set()),
    ],
)
def test_each_clause_alone_stands_against_a_go(
    good: Path, changes: dict[str, Any], clauses: set[str]
) -> None:
    decision = decided(good, policy(**changes))
    assert clauses <= open_clauses(decision)
    if "kernel" not in clauses:
        assert open_clauses(decision) == clauses
    assert (decision.label == GO) == (not clauses)


def test_a_failure_is_no_go_and_says_where(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1", ("sysrq-c",) * 4, broken=[3])
    decision = decided(tmp_path, policy(failure_rate={"max": 0.8}))
    assert open_clauses(decision) == {"failures", "drivers"}
    found = problem(decision, "failures")
    assert (found.board, found.scenario, found.driver) == ("board", "sysrq-c", "panicdump-sample")
    assert found.cited == ("run-1#3",)


def test_the_bench_is_not_the_kernel(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1", ("sysrq-c",) * 4, bench=[2])
    assert decided(tmp_path).label == GO
    strict = decided(tmp_path, policy(bench_errors={"max_rate": 0.2}))
    assert open_clauses(strict) == {"bench-errors"}
    write_run(tmp_path / "run-1", ("sysrq-c",) * 3, bench=[2])
    holes = decided(tmp_path, policy(bench_errors={"max_rate": 0.5}, failure_rate=None))
    assert open_clauses(holes) == {"coverage"}
    assert "the bench failed 1 times" in problem(holes, "coverage").what


def test_nothing_to_judge_is_no_go(tmp_path: Path) -> None:
    decision = decided(tmp_path)
    assert decision.label == NO_GO
    assert {"kernel", "hardware", "coverage", "failures"} <= open_clauses(decision)
    with pytest.raises(UsageError, match="is no folder"):
        facts_of_folder(tmp_path / "none")


def test_other_builds_never_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1", ("sysrq-c",) * 2)
    write_run(tmp_path / "run-2", ("sysrq-c",) * 9, build=OTHER, broken=[1])
    decision = decided(tmp_path, policy(failure_rate=None))
    assert open_clauses(decision) == {"coverage"}
    assert len(decision.counted) == 2
    # Both call themselves by one release: then it is not known which is meant.
    both = decided(tmp_path, policy(kernel={"release": "6.12.90"}))
    assert "name the build_id" in problem(both, "kernel").what


@pytest.mark.parametrize("allow", [False, True])
def test_virtual_never_goes_as_hardware(tmp_path: Path, allow: bool) -> None:
    write_run(tmp_path / "run-1", virtual=True)
    decision = decided(tmp_path, policy(allow_virtual=allow))
    assert decision.label == (VIRTUAL_GO if allow else NO_GO)
    if not allow:
        assert open_clauses(decision) >= {"hardware", "coverage"}
        assert "3 cycles on virtual boards (0 of them FAIL)" in decision.not_counted
        assert decision.counted == ()


@pytest.mark.parametrize(
    ("run_virtual", "cycle_virtual", "night_virtual"),
    [one for one in itertools.product([False, True], repeat=3) if any(one)],
)
def test_one_word_of_virtual_is_enough(
    tmp_path: Path, run_virtual: bool, cycle_virtual: bool, night_virtual: bool
) -> None:
    run = write_run(tmp_path / "nights/n/runs/run-1", virtual=cycle_virtual)
    run = run.model_copy(update={"virtual": run_virtual})
    one = night({"runs/run-1": run.model_copy(update={"virtual": night_virtual})})
    (tmp_path / "nights/n/night.json").write_text(one.model_dump_json())
    (tmp_path / "nights/n/runs/run-1/run.json").write_text(run.model_dump_json())
    assert decided(tmp_path).label == NO_GO
    assert decided(tmp_path, policy(allow_virtual=True)).label == VIRTUAL_GO


def test_a_mixed_go_is_labelled_too(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1")
    write_run(tmp_path / "run-2", virtual=True)
    decision = decided(tmp_path, policy(allow_virtual=True))
    assert decision.label == "GO (PARTLY VIRTUAL, not hardware)"
    assert decided(tmp_path).label == GO


def test_growth_against_a_baseline(tmp_path: Path) -> None:
    write_run(tmp_path / "old", build=OTHER)
    write_run(tmp_path / "new", large=104)
    for limits, met in (
        ({"max_bytes": 104}, True),
        ({"max_bytes": 103}, False),
        ({"max_percent": 1}, False),
        ({"max_percent": 90, "max_bytes": 50}, False),
        ({"max_percent": 90}, True),
    ):
        rule = policy(growth={"baseline": {"build_id": OTHER}, **limits})
        decision = decided(tmp_path, rule)
        assert ("growth" not in open_clauses(decision)) is met, limits
    assert (
        "104 B or"
        in problem(
            decided(tmp_path, policy(growth={"baseline": {"build_id": OTHER}, "max_bytes": 0})),
            "growth",
        ).what
    )


WAIVER = {
    "clause": "drivers",
    "board": "board",
    "scenario": "sysrq-c",
    "driver": "panicdump-sample",
    "owner": "Jane",
    "reason": "known",
    "expires": TODAY.isoformat(),
}


def test_a_waiver_forgives_until_its_last_day(tmp_path: Path) -> None:
    write_run(tmp_path / "run-1", ("sysrq-c",) * 4, broken=[3])
    waivers = [WAIVER, {**WAIVER, "clause": "failures"}]
    rule = policy(waivers=waivers, failure_rate={"max": 0.8})
    facts = facts_of_folder(tmp_path)
    last_day = decide(rule, facts, TODAY)
    assert last_day.label == GO
    assert [one.word for one in last_day.clauses].count("WAIVED") == 2
    # The bound is of what happened, forgiven or not.
    assert last_day.bounds[0].failures == 1
    after = decide(rule, facts, TODAY + timedelta(days=1))
    assert after.label == NO_GO
    assert open_clauses(after) == {"failures", "drivers", "waivers"}
    assert "expired on 2026-06-01" in after.clauses[-1].problems[0].what


def test_an_expired_waiver_that_nobody_needs_is_no_go_too(good: Path) -> None:
    old = {**WAIVER, "expires": (TODAY - timedelta(days=1)).isoformat()}
    decision = decided(good, policy(waivers=[old]))
    assert open_clauses(decision) == {"waivers"}


def test_an_unused_waiver_is_listed(good: Path) -> None:
    decision = decided(good, policy(waivers=[WAIVER]))
    assert decision.label == GO
    assert [one.owner for one in decision.unused_waivers] == ["Jane"]


FIELDS = ("board", "scenario", "channel", "driver")


@pytest.mark.parametrize("given", list(itertools.product([None, "a", "*"], repeat=4)))
def test_a_waiver_matches_its_own_problem_only(given: tuple[str | None, ...]) -> None:
    waiver = Waiver(
        clause="coverage",
        owner="Jane",
        reason="known",
        expires=TODAY,
        **dict(zip(FIELDS, given, strict=True)),
    )
    for clause, *fields in itertools.product(["coverage", "failures"], *[[None, "a", "b"]] * 4):
        one = Problem(str(clause), "x", **dict(zip(FIELDS, fields, strict=True)))  # type: ignore[arg-type]
        (found,) = waived([one], [waiver], TODAY)
        assert (found.waiver is waiver) is (clause == "coverage" and tuple(fields) == given)


def test_retried_and_training_cycles_do_not_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "nights/n/runs/run-1", ("sysrq-c",) * 5, bench=[1])
    one = night({"runs/run-1": run})
    cycles = list(one.cycles)
    cycles[0] = cycles[0].model_copy(update={"counts": False})
    cycles[4] = cycles[4].model_copy(update={"purpose": Purpose.TRAINING, "counts": False})
    one = one.model_copy(update={"cycles": tuple(cycles)})
    (tmp_path / "nights/n/night.json").write_text(one.model_dump_json())
    decision = decided(tmp_path)
    assert decision.label == GO
    assert len(decision.counted) == 3
    assert decision.not_counted == (
        "1 training cycles",
        "1 attempts that were retried after an ERROR",
    )
    # A retried attempt still is a failure of the bench.
    assert open_clauses(decided(tmp_path, policy(bench_errors={"max_rate": 0.2}))) == {
        "bench-errors"
    }


def test_a_night_whose_run_is_lost_is_no_go(tmp_path: Path) -> None:
    run = write_run(tmp_path / "n/runs/run-1")
    (tmp_path / "n/night.json").write_text(
        night({"runs/run-1": run, "runs/run-2": lost(run)}).model_dump_json()
    )
    decision = decided(tmp_path, policy(failure_rate=None))
    assert {"kernel", "failures"} <= open_clauses(decision)
    assert any("run-2" in one.what for one in decision.clauses[0].problems)


def lost(run: Run) -> Run:
    cycle = run.cycles[0]
    result = cycle.result.model_copy(update={"verdict": Verdict.FAIL})
    return run.model_copy(update={"cycles": (cycle.model_copy(update={"result": result}),)})


def test_nights_that_disagree_about_a_hash_are_no_go(good: Path) -> None:
    facts = facts_of_folder(good)
    facts.add_hashes(BUILD, {"image": "a" * 64})
    assert decide(policy(), facts, TODAY, {"image": "a" * 64}).label == GO
    assert open_clauses(decide(policy(), facts, TODAY, {"image": "b" * 64})) == {"kernel"}
    facts.add_hashes(BUILD, {"image": "c" * 64})
    assert open_clauses(decide(policy(), facts, TODAY)) == {"kernel"}


def test_a_run_in_two_places_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run-1")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/run.json").write_text(run.model_dump_json())
    assert len(facts_of_folder(tmp_path).cycles) == 3


def test_facts_are_those_of_the_build_that_the_board_named() -> None:
    facts = Facts(source="")
    assert facts.of(policy().kernel) == []


@pytest.mark.parametrize(
    ("failures", "cycles", "confidence", "bound"),
    [
        # Tables of the exact interval; the first is 1 - 0.05 ** (1 / 59).
        (0, 59, 0.95, 0.0495),
        (0, 299, 0.95, 0.00997),
        (1, 10, 0.95, 0.3942),
        (2, 10, 0.975, 0.5561),
        (5, 100, 0.975, 0.1128),
        (10, 10, 0.95, 1.0),
        (0, 0, 0.95, 1.0),
        (300, 10000, 0.95, 0.0330),
    ],
)
def test_the_bound_is_the_exact_one(
    failures: int, cycles: int, confidence: float, bound: float
) -> None:
    assert upper_bound(failures, cycles, confidence) == pytest.approx(bound, abs=6e-5)


def test_how_many_cycles_a_rate_needs() -> None:
    assert [cycles_needed(rate, 0.95) for rate in (0.5, 0.05, 0.01)] == [5, 59, 299]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (POLICY_TEXT + "repeat: 3\n", ":11: repeat: there is no such key. The keys are"),
        (POLICY_TEXT.replace("repeats: 3", "repeats: 0"), ":8: required.0.repeats"),
        (POLICY_TEXT.replace(f'{{build_id: "{BUILD}"}}', "{}"), ":3: kernel: name the kernel by"),
        (POLICY_TEXT + "hardware: required\nallow_virtual: true\n", "exclude each other"),
        (POLICY_TEXT + "failure_rate: {max: 1.5}\n", ":11: failure_rate.max"),
        (POLICY_TEXT + "waivers: [{clause: hardware}]\n", ":11: waivers.0.clause"),
        (POLICY_TEXT + "artifacts: {image: nothing}\n", "artifacts.image"),
        ("rule: [", "this is not YAML"),
        ("", "name: this key is missing"),
    ],
)
def test_a_wrong_policy_is_named_by_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_policy(path)
    assert said in error.value.message
    assert str(path) in error.value.message


def test_the_policy_of_the_virtual_board_can_be_read() -> None:
    rule = read_policy(Path(__file__).parents[2] / "policies/virtual.yaml")
    assert rule.allow_virtual
    assert "failure_rate" in str(policy_schema())
