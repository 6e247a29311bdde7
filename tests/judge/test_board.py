"""One rule, one test: what is said of the board and the bench, and whose fault it is."""

from __future__ import annotations

from typing import Any

import pytest

from farm.errors import BenchError
from farm.judge import judge
from farm.model import BenchFault, Blame, Capture, Expect, Finding, FindingKind, Subject, Verdict

from .cycles import BOOT, Scene, findings, flipped, only, row

SAMPLE = "panicdump-sample.1"


@pytest.fixture
def scene() -> Scene:
    return Scene()


def empty(scene: Scene) -> Scene:
    """Nothing came back."""
    scene.records = {one.id: None for one in scene.devices}
    scene.without_contents = True
    return scene


def fault(part: str, stage: str) -> BenchFault:
    return BenchFault(part=part, stage=stage, message="it went away", next_step="look")


@pytest.mark.parametrize(
    ("part", "stage", "kind"),
    [
        ("serial", "panic", FindingKind.BENCH_LOST),
        ("serial", "collect", FindingKind.BENCH_LOST),
        ("power", "boot", FindingKind.BENCH_LOST),
        ("board", "panic", FindingKind.HUNG),
        ("board", "reset", FindingKind.HUNG),
        ("shell", "arm", FindingKind.BENCH_LOST),
        ("shell", "collect", FindingKind.CAPTURE_INCOMPLETE),
        ("controller", "boot", FindingKind.BENCH_LOST),
    ],
)
def test_a_bench_fault_is_an_error_and_names_its_part(
    scene: Scene, part: str, stage: str, kind: FindingKind
) -> None:
    result = empty(scene).judge(fault=fault(part, stage))
    assert result.verdict is Verdict.ERROR
    assert only(result, kind).subject is Subject.BOARD
    assert part in result.why
    assert stage in result.why
    assert {one.verdict for one in result.devices} == {Verdict.ERROR}
    assert not [one for one in result.findings if one.verdict is Verdict.FAIL]


def test_what_was_found_before_the_fault_stays_but_decides_nothing(scene: Scene) -> None:
    good = scene.record(2)
    scene.records[2] = flipped(good, good.index(scene.regions(2)[0].data) * 8)
    scene.records[7] = None
    result = scene.judge(fault=fault("shell", "collect"))
    assert result.verdict is Verdict.ERROR
    assert only(result, FindingKind.CORRUPT).device == SAMPLE
    assert row(result, SAMPLE).verdict is Verdict.FAIL
    assert row(result, "panicdump-sample.0").verdict is Verdict.PASS
    assert row(result, "ae94000.dsi.0").verdict is Verdict.ERROR


def test_a_fault_before_arming_leaves_no_table(scene: Scene) -> None:
    result = scene.judge(manifest=None, panic=None, captures=(), fault=fault("power", "boot"))
    assert result.verdict is Verdict.ERROR
    assert result.devices == ()


def test_an_input_without_manifest_or_account_is_an_error(scene: Scene) -> None:
    assert scene.judge(manifest=None, panic=None, captures=()).verdict is Verdict.ERROR
    result = scene.judge(panic=None)
    assert result.verdict is Verdict.ERROR
    assert "no account of the panic" in result.why


def test_a_board_that_cannot_run_the_scenario_is_skipped(scene: Scene) -> None:
    result = scene.judge(manifest=None, panic=None, captures=(), unsupported=("break", "lkdtm"))
    assert result.verdict is Verdict.SKIP
    assert only(result, FindingKind.UNSUPPORTED).verdict is Verdict.SKIP
    assert "break, lkdtm" in result.why


def test_without_registered_devices_nothing_was_tested(scene: Scene) -> None:
    scene.devices = []
    assert scene.judge().verdict is Verdict.SKIP
    scene.without_contents = True
    assert scene.judge().verdict is Verdict.SKIP


def no_panic(scene: Scene, **panic: Any) -> Finding:
    scene.panic = {"signature_found": False, "panic_line": None, **panic}
    result = scene.judge()
    found = [one for one in result.findings if one.subject is Subject.BOARD]
    assert result.verdict is found[0].verdict
    assert found[0].message in result.why
    return found[0]


def test_another_panic_than_the_scenarios_fails_and_its_dump_is_judged(scene: Scene) -> None:
    found = no_panic(scene, panic_line="Kernel panic - not syncing: Oops\x07")
    assert (found.kind, found.verdict) == (FindingKind.NO_PANIC, Verdict.FAIL)
    assert "Oops\\x07" in found.message
    assert found.evidence is not None
    assert found.evidence.console_lines
    assert row(scene.judge(), SAMPLE).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "panic", [{"reset": "none", "boot_id_after": None}, {"boot_id_after": str(BOOT)}]
)
def test_a_kernel_that_survived_the_trigger_fails(scene: Scene, panic: dict[str, Any]) -> None:
    found = no_panic(empty(scene), **panic)
    assert (found.kind, found.verdict) == (FindingKind.NO_PANIC, Verdict.FAIL)
    assert "survived" in found.message
    assert {one.verdict for one in scene.judge().devices} == {Verdict.SKIP}


def test_a_board_that_came_back_without_panic_or_dump_fails(scene: Scene) -> None:
    found = no_panic(empty(scene))
    assert (found.kind, found.verdict) == (FindingKind.NO_PANIC, Verdict.FAIL)


def test_a_dump_without_a_panic_on_the_console_blames_the_serial_line(scene: Scene) -> None:
    found = no_panic(scene)
    assert (found.kind, found.verdict) == (FindingKind.BENCH_LOST, Verdict.ERROR)


def test_no_panic_and_no_kernel_afterwards_is_hung(scene: Scene) -> None:
    found = no_panic(
        empty(scene),
        reset="unknown",
        boot_id_after=None,
        release_after=None,
        build_id_after=None,
    )
    assert (found.kind, found.verdict) == (FindingKind.HUNG, Verdict.ERROR)


@pytest.mark.parametrize("panic", [{"release_after": "6.1.0"}, {"build_id_after": "ff" * 20}])
def test_another_kernel_after_the_reset_is_the_benchs_fault(
    scene: Scene, panic: dict[str, Any]
) -> None:
    scene.panic = panic
    result = empty(scene).judge()
    assert result.verdict is Verdict.ERROR
    found = only(result, FindingKind.WRONG_KERNEL)
    assert found.evidence is not None
    assert found.evidence.got in panic.values()
    assert findings(result, FindingKind.MISSING) == []


def test_an_unknown_kernel_after_the_reset_is_not_a_wrong_one(scene: Scene) -> None:
    scene.panic = {"release_after": None, "build_id_after": None}
    assert scene.judge().verdict is Verdict.PASS


def test_a_cold_reset_is_the_benchs_fault(scene: Scene) -> None:
    scene.panic = {"reset": "cold"}
    result = empty(scene).judge()
    assert result.verdict is Verdict.ERROR
    assert only(result, FindingKind.COLD_RESET)
    assert {one.verdict for one in result.devices} == {Verdict.ERROR}


def test_a_reset_that_kept_the_records_was_not_cold(scene: Scene) -> None:
    scene.panic = {"reset": "cold"}
    assert scene.judge().verdict is Verdict.PASS


def test_without_any_sign_that_memory_kept_its_power_nothing_is_no_proof(scene: Scene) -> None:
    scene.panic = {"reset": "unknown"}
    result = empty(scene).judge()
    assert result.verdict is Verdict.ERROR
    assert only(result, FindingKind.COLD_RESET)


def test_an_unknown_reset_excuses_nothing_else(scene: Scene) -> None:
    scene.panic = {"reset": "unknown"}
    scene.records[2] = None
    assert scene.judge().verdict is Verdict.FAIL


def test_nothing_read_is_no_proof_that_nothing_is_there(scene: Scene) -> None:
    for expect in Expect:
        result = empty(scene).judge(channels=(), expect=expect)
        assert result.verdict is Verdict.ERROR
        assert result.blame is Blame.BENCH


def test_a_panic_after_which_the_same_boot_answers_is_a_contradiction(scene: Scene) -> None:
    scene.panic = {"boot_id_after": str(BOOT)}
    result = scene.judge()
    assert result.verdict is Verdict.ERROR
    assert "the same boot answers" in result.why


def test_a_panic_that_only_the_kept_log_shows_is_the_scenarios_and_says_so(scene: Scene) -> None:
    scene.panic = {"from_kept_log": True}
    result = scene.judge()
    assert result.verdict is Verdict.PASS
    assert only(result, FindingKind.SERIAL_SILENT).verdict is Verdict.PASS


def test_a_silent_line_and_where_the_board_was_found_are_findings_of_their_own(
    scene: Scene,
) -> None:
    fault = BenchFault(part="board", stage="reset", message="no boot", silent=True)
    assert only(scene.judge(fault=fault), FindingKind.SERIAL_SILENT)
    for place, kind in (
        ("hung", FindingKind.SERIAL_SILENT),
        ("boot loop", FindingKind.BOOT_LOOP),
        ("crash mode", FindingKind.IN_CRASH_MODE),
    ):
        result = scene.judge(fault=fault.model_copy(update={"place": place}))
        assert only(result, kind).blame is Blame.BENCH
    heard = fault.model_copy(update={"silent": False, "place": "hung"})
    assert only(scene.judge(fault=heard), FindingKind.HUNG)
    read = heard.model_copy(update={"stage": "collect", "place": "crash mode"})
    assert only(scene.judge(fault=read), FindingKind.CAPTURE_INCOMPLETE)


def test_an_incomplete_capture_is_not_corrupt(scene: Scene) -> None:
    scene.records[2] = scene.record(2)[:-40]
    scene.captures["panicdump-ramoops-2"] = {"complete": False, "note": "the line went silent"}
    result = scene.judge()
    assert result.verdict is Verdict.ERROR
    assert "the line went silent" in only(result, FindingKind.CAPTURE_INCOMPLETE).message
    assert row(result, SAMPLE).verdict is Verdict.ERROR
    assert row(result, "panicdump-sample.0").verdict is Verdict.PASS
    assert findings(result, FindingKind.CORRUPT) == []
    assert findings(result, FindingKind.TORN) == []


def test_an_incomplete_capture_without_header_excuses_what_is_missing(scene: Scene) -> None:
    scene.records[2] = b""
    scene.captures["panicdump-ramoops-2"] = {"complete": False}
    result = scene.judge()
    assert result.verdict is Verdict.ERROR
    assert row(result, SAMPLE).verdict is Verdict.ERROR


def test_an_incomplete_contents_record_is_not_missing(scene: Scene) -> None:
    scene.contents = scene.all_files()["panicdump-ramoops-0"][:-8]
    scene.captures["panicdump-ramoops-0"] = {"complete": False}
    result = scene.judge()
    assert result.verdict is Verdict.ERROR
    assert findings(result, FindingKind.MISSING) == []


def test_an_incomplete_capture_does_not_excuse_another_device(scene: Scene) -> None:
    scene.records[2] = scene.record(2)[:-40]
    scene.captures["panicdump-ramoops-2"] = {"complete": False}
    scene.records[7] = None
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    assert row(result, "ae94000.dsi.0").verdict is Verdict.FAIL


def test_a_capture_that_cannot_be_read_is_incomplete(scene: Scene) -> None:
    cycle, read = scene.prepared()

    def failing(capture: Capture) -> bytes:
        if capture.board_name.endswith("-1"):
            raise BenchError(f"{capture.path} is gone", part="disk")
        if capture.board_name.endswith("-3"):
            raise PermissionError(13, "Permission denied")
        return read(capture)

    result = judge(cycle, failing)
    assert result.verdict is Verdict.ERROR
    messages = [one.message for one in findings(result, FindingKind.CAPTURE_INCOMPLETE)]
    assert any("0001.bin is gone" in one for one in messages)
    assert any("Permission denied" in one for one in messages)
    assert row(result, "panicdump-sample.1").verdict is Verdict.PASS
