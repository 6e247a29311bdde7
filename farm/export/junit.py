"""JUnit XML, valid for Jenkins' xUnit plug-in (junit-10.xsd) and for Ant's schema (Windy Road).

A suite is a kernel on a board, a case is a cycle that counts. FAIL is <failure>; ERROR and a hole
are <error>, for nothing is known of the kernel; SKIP is <skipped>. What XML 1.0 cannot hold is
written as its number.
"""

from __future__ import annotations

from datetime import UTC
from xml.etree import ElementTree as ET

from farm.export.lines import case_lines
from farm.export.results import Case, Outcome, Results, Suite, rfc3339
from farm.report.printable import visible

__all__ = ["junit_xml"]

_TAGS = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.MISS: "error"}


def _timestamp(text: str) -> str:
    moment = rfc3339(text)
    # Ant's schema wants UTC without saying so.
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if moment else "1970-01-01T00:00:00"


def _case(suite: Suite, case: Case) -> ET.Element:
    element = ET.Element(
        "testcase",
        name=visible(case.name),
        classname=visible(suite.name),
        time=f"{max(0.0, case.wall_s):.3f}",
    )
    if case.outcome is Outcome.SKIP:
        ET.SubElement(element, "skipped", message=visible(case.why))
    elif (tag := _TAGS.get(case.outcome)) is not None:
        kind = case.outcome.value
        if case.cycle is not None and case.cycle.result.blame is not None:
            kind += f" ({case.cycle.result.blame.value})"
        wrong = ET.SubElement(element, tag, type=kind, message=visible(case.why))
        wrong.text = "\n".join(case_lines(case))
    return element


def _suite(results: Results, suite: Suite, number: int) -> ET.Element:
    errors = suite.count(Outcome.ERROR) + suite.count(Outcome.MISS)
    started = min((case.started for case in suite.cases if case.started), default=results.started)
    element = ET.Element(
        "testsuite",
        name=visible(suite.name),
        package="panicdump",
        id=str(number),
        timestamp=_timestamp(started),
        hostname=visible(suite.board) or "unknown",
        tests=str(len(suite.cases)),
        failures=str(suite.count(Outcome.FAIL)),
        errors=str(errors),
        skipped=str(suite.count(Outcome.SKIP)),
        time=f"{sum(max(0.0, case.wall_s) for case in suite.cases):.3f}",
    )
    properties = ET.SubElement(element, "properties")
    facts = {
        "farm.results": results.name,
        "farm.version": results.farm_version,
        "board": suite.board,
        "board.virtual": "true: does not count as hardware" if suite.virtual else "false",
        "kernel": suite.kernel.label,
        "kernel.release": suite.kernel.release,
        "kernel.build_id": suite.kernel.build_id,
        **{f"kernel.sha256.{name}": value for name, value in suite.kernel.sha256.items()},
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=visible(name), value=visible(value))
    element.extend(_case(suite, case) for case in suite.cases)
    ET.SubElement(element, "system-out").text = "\n".join(map(visible, suite.notes))
    ET.SubElement(element, "system-err").text = "\n".join(map(visible, results.notes))
    return element


def junit_xml(results: Results) -> str:
    """Write the results as one JUnit document."""
    root = ET.Element("testsuites")
    root.extend(_suite(results, suite, at) for at, suite in enumerate(results.suites))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"
