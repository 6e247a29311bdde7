"""Scenarios that say which records must not be intact, and why."""

from __future__ import annotations

from typing import Any

import pytest

from farm.formats.contents import Outcome
from farm.model import Blame, Expect, ExpectedFault, FindingKind, Verdict
from tests.judge import cycles
from tests.judge.cycles import OTHER_BOOT, Scene, row

LOST = ExpectedFault(device="panel-*", kinds=(FindingKind.OVERFLOW,))


def judged(scene: Scene, *exceptions: ExpectedFault, **changed: Any) -> Any:
    return scene.judge(expect=Expect.PARTIAL, exceptions=exceptions, **changed)


def without_panel() -> Scene:
    scene = Scene()
    scene.records[7] = None
    scene.outcomes[7] = (Outcome.OVERFLOW, 0)
    return scene


def test_a_record_that_must_be_missing_is_missing() -> None:
    result = judged(without_panel(), LOST)
    assert result.verdict is Verdict.PASS
    assert row(result, "ae94000.dsi.0").why.startswith("as the scenario wants it: it did not fit")
    assert result.why == "2 devices intact, 1 not, as the scenario wants it"


def test_a_record_that_must_be_missing_arrives() -> None:
    result = judged(Scene(), LOST)
    assert result.verdict is Verdict.FAIL
    assert "intact, but the scenario wants it overflow" in result.why


def test_missing_for_another_reason_fails() -> None:
    scene = without_panel()
    scene.outcomes[7] = (Outcome.WRITE_FAILED, -5)
    assert judged(scene, LOST).verdict is Verdict.FAIL


def test_the_other_devices_must_still_be_intact() -> None:
    scene = without_panel()
    scene.records[2] = None
    scene.outcomes[2] = (Outcome.OVERFLOW, 0)
    result = judged(scene, LOST)
    assert result.verdict is Verdict.FAIL
    assert row(result, "panicdump-sample.1").verdict is Verdict.FAIL


def test_a_scenario_about_devices_that_are_not_there_proves_nothing() -> None:
    absent = ExpectedFault(device="no-such-*", kinds=(FindingKind.OVERFLOW,))
    result = judged(Scene(), absent)
    assert result.verdict is Verdict.FAIL
    assert result.why == "no-such-*: what the scenario is about, but never registered"
    assert result.blame is Blame.POLICY


def test_a_scenario_may_name_devices_that_only_some_boards_have() -> None:
    absent = ExpectedFault(device="no-such-*", kinds=(FindingKind.OVERFLOW,))
    assert judged(without_panel(), LOST, absent).verdict is Verdict.PASS


def test_without_exceptions_nothing_is_forgiven() -> None:
    scene = without_panel()
    assert scene.judge(exceptions=(LOST,)).verdict is Verdict.FAIL


@pytest.mark.parametrize(("same_boot", "verdict"), [(False, Verdict.PASS), (True, Verdict.FAIL)])
def test_records_of_the_boot_after_the_manifest_are_of_another_boot(
    same_boot: bool, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "SEQUENCE", 0)
    scene = Scene()
    scene.manifest["next_boot"] = True
    if not same_boot:
        scene.manifest["boot_id"] = str(OTHER_BOOT)
        scene.panic["boot_id_after"] = "3d0fd0a8-0000-4000-8000-00000000000a"
    assert scene.judge().verdict is verdict
