"""Each machine form, read again by a program that is not ours, of good and of hostile results."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import junitparser
import kcidb_io
import pytest
import xmlschema

from farm.errors import UsageError
from farm.export.cli import export_command
from farm.export.files import FORMS, write_forms, write_night_exports, write_run_exports
from farm.export.junit import junit_xml
from farm.export.kcidb import kcidb_json
from farm.export.ktap import ktap_text
from farm.export.mail import mail_text
from farm.export.names import slug
from farm.export.results import Outcome, Results, load_results, results_of_night, results_of_run
from farm.export.sizes import safe_cell, sizes_csv
from farm.export.squad import squad_files
from farm.model import Verdict
from farm.report.printable import visible
from tests.export.nights import night, run
from tests.report.test_report import HOSTILE, cycle, run_of

P, F, E, S = Verdict.PASS, Verdict.FAIL, Verdict.ERROR, Verdict.SKIP
NAMES = (
    *HOSTILE,
    "\u00e4\u4e2d\U0001f600" * 34,  # 306 bytes of UTF-8
    "=cmd|'/c calc'!A0",
    "ok 1 - # SKIP",
    "a\x00b\ufffe\x1f",
    "]]>&lt;",
    "",
)
SOURCE = Path("/usr/src/linux-source-6.12.tar.xz")
KUNIT = "linux-source-6.12/tools/testing/kunit"


def all_verdicts() -> Results:
    runs = {"runs/a": run([P, F, E, S, P])}
    return results_of_night(night(runs, holes=["scenario-x"]), runs)


def hostile(name: str) -> Results:
    one = run_of(
        *(cycle(at, verdict, name=name, path=name) for at, verdict in enumerate((P, F, E, S), 1)),
        name=name,
    ).model_copy(update={"started": name, "planned_cycles": 6, "ended_early": name})
    runs = {"runs/a": one}
    return results_of_night(night(runs, kernel=name, holes=[name], ended_early=name), runs)


def every_results() -> list[Results]:
    return [all_verdicts(), results_of_run(run([])), *map(hostile, NAMES)]


@pytest.fixture(scope="session")
def kunit_parser(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The kernel's own parser of KTAP, out of the source package that the build needs anyway."""
    kept = Path(
        os.environ.get("PANIC_FARM_CACHE") or Path.home() / ".cache" / "panic-farm"
    ).joinpath("kunit-parser")
    for built in kept.parent.glob("source/6.12-*/linux/tools/testing/kunit/kunit_parser.py"):
        kept = built.parent
        break
    if not (kept / "kunit_parser.py").exists():
        unpacked = tmp_path_factory.mktemp("kunit")
        subprocess.run(
            ["tar", "-xJf", SOURCE, "-C", unpacked, "--wildcards", f"{KUNIT}/*.py"], check=True
        )
        kept.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-rT", unpacked / KUNIT, kept], check=True)
    sys.path.insert(0, str(kept))
    try:
        spec = importlib.util.spec_from_file_location("kunit_parser", kept / "kunit_parser.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["kunit_parser"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(kept))
    return module


@pytest.fixture(scope="session")
def junit_schema() -> Any:
    return xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))


def test_junit_is_valid_and_says_whose_fault(junit_schema: Any) -> None:
    text = junit_xml(all_verdicts())
    junit_schema.validate(text)
    suites = junitparser.JUnitXml.fromstring(text.encode())
    (suite,) = suites
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 1, 2, 1)
    results = [type(case.result[0]).__name__ if case.result else "passed" for case in suite]
    assert results == ["passed", "Failure", "Error", "Skipped", "passed", "Error"]
    (failure,) = next(case for case in suite if case.is_failure).result
    assert "at 0x1f4 of captures/pstorefs/0001.bin" in failure.text
    (hole,) = list(suite)[-1].result
    assert hole.type == "MISS"
    assert "the night's time was up" in hole.message


def test_hostile_names_leave_junit_valid(junit_schema: Any) -> None:
    for results in every_results():
        text = junit_xml(results)
        junit_schema.validate(text)
        junitparser.JUnitXml.fromstring(text.encode())


def test_kcidb_validates_it_and_its_statuses_are_right() -> None:
    report = json.loads(kcidb_json(all_verdicts()))
    kcidb_io.schema.V5_3.validate(report)
    statuses = [test["status"] for test in report["tests"]]
    assert statuses == ["PASS", "FAIL", "ERROR", "SKIP", "PASS", "MISS", "DONE"]
    assert report["tests"][-1]["number"] == {"value": 6000, "unit": "B", "prefix": "binary"}
    assert report["tests"][-1]["path"] == "panicdump.size.panicdump-sample"
    assert {test["build_id"] for test in report["tests"]} == {report["builds"][0]["id"]}
    assert report["builds"][0]["checkout_id"] == report["checkouts"][0]["id"]
    assert len({test["id"] for test in report["tests"]}) == len(report["tests"])


def test_kcidb_validates_hostile_names_and_cuts_long_logs() -> None:
    for results in every_results():
        report = kcidb_io.schema.LATEST.validate(json.loads(kcidb_json(results)))
        assert all(len(test.get("log_excerpt", "")) <= 16384 for test in report["tests"])
    long = run([F])
    many = long.cycles[0].result.findings * 3000
    result = long.cycles[0].result.model_copy(update={"findings": many})
    long = long.model_copy(
        update={"cycles": (long.cycles[0].model_copy(update={"result": result}),)}
    )
    (test, _) = json.loads(kcidb_json(results_of_run(long)))["tests"]
    assert 16000 < len(test["log_excerpt"]) <= 16384


def test_kcidb_refuses_a_wrong_origin() -> None:
    with pytest.raises(UsageError, match="--origin"):
        kcidb_json(all_verdicts(), "Panic Farm")


def check_squad(files: dict[str, str]) -> None:
    """Hold the files against SQUAD's documentation, "Input file formats"."""
    identifier = re.compile("[a-zA-Z0-9][a-zA-Z0-9_.-]*")
    for path, text in files.items():
        build, environment, name = path.split("/")
        assert identifier.fullmatch(build), build
        assert identifier.fullmatch(environment), environment
        content = json.loads(text)
        assert isinstance(content, dict)
        match name:
            case "tests.json":
                assert set(content.values()) <= {"pass", "fail", "error", "skip", "miss"}
                for test in content:
                    assert re.fullmatch(r"[^/\[\]]+/[^/\[\]]+\[[^\[\]]*\]", test), test
            case "metrics.json":
                for metric, value in content.items():
                    assert metric.count("/") == 1
                    for one in value if isinstance(value, list) else [value]:
                        assert isinstance(one, int | float)
            case "metadata.json":
                assert all(isinstance(value, str) for value in content.values())
                assert content["job_id"]
                if "datetime" in content:
                    datetime.fromisoformat(content["datetime"])
            case _:
                pytest.fail(path)


def test_squad_has_its_documented_shape() -> None:
    files = squad_files(all_verdicts())
    assert sorted(files) == [
        f"v6.12/virtual/{name}.json" for name in ("metadata", "metrics", "tests")
    ]
    check_squad(files)
    tests = json.loads(files["v6.12/virtual/tests.json"])
    assert sorted(tests.values()) == ["error", "fail", "miss", "pass", "pass", "skip"]
    for results in every_results():
        check_squad(squad_files(results))


def test_csv_lists_each_record_and_is_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(sizes_csv(all_verdicts()))))
    assert len(rows) == 2 * 5
    assert rows[0]["record_bytes"] == "6000"
    assert rows[1]["budget_bytes"] == "5000"
    for results in every_results():
        for row in csv.reader(io.StringIO(sizes_csv(results))):
            assert len(row) == len(rows[0])
            for value in row:
                assert not value.lstrip().startswith(("=", "+", "-", "@"))
                assert value.isprintable()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "|x", "%x"])
def test_what_looks_like_a_formula_is_text(text: str) -> None:
    assert not safe_cell(text).startswith(("=", "+", "-", "@", " ", "|", "%", "\t"))


def test_the_kernels_own_parser_reads_the_ktap(kunit_parser: ModuleType) -> None:
    def parse(results: Results) -> Any:
        return kunit_parser.parse_run_tests(ktap_text(results).splitlines())

    test = parse(all_verdicts())
    counts = test.counts
    assert (counts.passed, counts.failed, counts.skipped, counts.crashed) == (2, 1, 3, 0)
    assert counts.errors == 0
    for results in every_results():
        counts = parse(results).counts
        cases = sum(len(suite.cases) for suite in results.suites)
        failed = sum(suite.count(Outcome.FAIL) for suite in results.suites)
        if cases:
            assert (counts.failed, counts.crashed, counts.errors) == (failed, 0, 0)
            assert counts.total() == cases


def test_the_mail_keeps_the_order_of_kernel_lists() -> None:
    old_runs = {"runs/a": run([P, F, P])}
    new_runs = {"runs/a": run([F, P, E])}
    before = results_of_night(night(old_runs, night_id="night-1"), old_runs)
    text = mail_text(results_of_night(night(new_runs, night_id="night-2"), new_runs), before)
    parts = [
        *("FAIL: night of quick, night-2", "VIRTUAL", "Identity", "Regressions (against night-1)"),
        *("* scenario-1 [pstorefs] on virtual", "Fixes (against night-1)", "* scenario-2"),
        *("Failures of the kernel", "Trouble of the bench", "Totals", "Suites"),
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "nothing to compare with" in mail_text(before)


def test_the_mail_is_plain_and_narrow() -> None:
    for results in every_results():
        text = mail_text(results)
        assert text.isascii()
        for line in text.splitlines():
            assert line.isprintable()
            assert len(line) <= 78 or max(map(len, line.split())) > 60, line


def test_a_bench_fault_never_fails_a_kernel_in_any_form(junit_schema: Any) -> None:
    results = results_of_run(run([E, S]).model_copy(update={"planned_cycles": 3}))
    assert "<failure" not in junit_xml(results)
    assert "not ok" not in ktap_text(results)
    assert '"FAIL"' not in kcidb_json(results)
    assert all('"fail"' not in text for text in squad_files(results).values())
    assert "Failures of the kernel" not in mail_text(results)
    assert [case.outcome for _, case in results.cases()][-1] is Outcome.MISS


def test_names_stay_apart_when_they_are_changed() -> None:
    assert slug("sysrq-c") == "sysrq-c"
    assert slug("a/b") != slug("a.b") != slug("a-b")
    assert re.fullmatch("[A-Za-z0-9_-]+", slug("../../\ud800"))


def test_a_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    runs = {"runs/a": run([P]), "runs/b": run([F], board="other")}
    (tmp_path / "night.json").write_text(night(runs).model_dump_json())
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/run.json").write_text(runs["runs/a"].model_dump_json())
    results = load_results(tmp_path)
    assert [case.outcome for _, case in results.cases()] == [Outcome.PASS, Outcome.FAIL]
    assert "runs/b cannot be read" in results.notes[0]
    for form in FORMS:
        write_forms(tmp_path / "out", results, [form])


@pytest.mark.parametrize("name", NAMES)
def test_no_file_lands_outside(name: str, tmp_path: Path) -> None:
    write_forms(tmp_path / "deep/er", hostile(name), FORMS)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 8
    assert all(path.is_relative_to(tmp_path / "deep/er") for path in written)
    assert visible(name, ascii_only=True) in (tmp_path / "deep/er/mail.txt").read_text() or name


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(run([P, F]).model_dump_json())
    export_command(tmp_path, ["all"])
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "junit.xml").exists()
    export_command(tmp_path, ["ktap"], out=Path("-"))
    assert capsys.readouterr().out.startswith("KTAP version 1\n1..1\n")
    with pytest.raises(UsageError, match="there is no form"):
        export_command(tmp_path, ["html"])
    with pytest.raises(UsageError, match="one form only"):
        export_command(tmp_path, ["squad"], out=Path("-"))
    with pytest.raises(UsageError, match="neither"):
        load_results(tmp_path / "none")


def test_runs_and_nights_write_their_own(tmp_path: Path) -> None:
    one = run([P])
    assert [path.name for path in write_run_exports(tmp_path, one)] == ["junit.xml"]
    runs = {"runs/a": one}
    written = write_night_exports(tmp_path / "n", night(runs), runs)
    assert [path.name for path in written] == ["junit.xml", "mail.txt"]
