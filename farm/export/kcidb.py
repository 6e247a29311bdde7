"""KCIDB reports, schema 5.3 (kcidb-io): a build per kernel, a test per cycle that counts.

ERROR is a test that the bench did not let come to an end, MISS one that never began: a hole. Sizes
are tests of their own with the status DONE: the largest record of each driver, in bytes.
Checkouts name no git commit: the farm builds from a distribution's source and a series.
"""

from __future__ import annotations

import json
import re
from typing import Any

from farm.errors import UsageError
from farm.export.lines import excerpt
from farm.export.names import slug
from farm.export.results import Kernel, Results, Suite, rfc3339
from farm.report.printable import visible

__all__ = ["kcidb_json"]

_LOG_EXCERPT_MAX = 16384


def _build_id(origin: str, kernel: Kernel) -> str:
    return f"{origin}:{visible(kernel.build_id or kernel.label, ascii_only=True)}"


def _time(text: str) -> dict[str, str]:
    moment = rfc3339(text)
    return {"start_time": moment.isoformat()} if moment else {}


def _environment(suite: Suite) -> dict[str, Any]:
    virtual = " (virtual board, does not count as hardware)" if suite.virtual else ""
    return {
        "comment": f"{visible(suite.board)}{virtual}",
        "misc": {"board": visible(suite.board), "virtual": suite.virtual},
    }


def _sizes(origin: str, results: Results, suite: Suite) -> list[dict[str, Any]]:
    largest: dict[str, int] = {}
    for case in suite.cases:
        for row in case.cycle.result.devices if case.cycle else ():
            if row.record_bytes:
                largest[row.driver] = max(largest.get(row.driver, 0), row.record_bytes)
    place = f"{slug(results.name)}/{slug(suite.kernel.label)}/{slug(suite.board)}"
    return [
        {
            "build_id": _build_id(origin, suite.kernel),
            "id": f"{origin}:{place}/size/{slug(driver)}",
            "origin": origin,
            "environment": _environment(suite),
            "path": f"panicdump.size.{slug(driver)}",
            "comment": f"largest record of {visible(driver)}",
            "status": "DONE",
            "number": {"value": size, "unit": "B", "prefix": "binary"},
        }
        for driver, size in sorted(largest.items())
    ]


def _tests(origin: str, results: Results) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = []
    for suite in results.suites:
        for at, case in enumerate(suite.cases):
            place = f"{slug(results.name)}/{slug(suite.kernel.label)}/{slug(suite.board)}"
            test: dict[str, Any] = {
                "build_id": _build_id(origin, suite.kernel),
                "id": f"{origin}:{place}/{at}",
                "origin": origin,
                "environment": _environment(suite),
                "path": f"panicdump.{slug(case.scenario)}",
                "comment": visible(case.name),
                "status": case.outcome.value,
                **_time(case.started),
                "misc": {
                    "scenario": visible(case.scenario),
                    "channels": [visible(one) for one in case.channels],
                    "repeat": case.repeat,
                    "attempt": case.attempt,
                    "why": visible(case.why),
                    "evidence": f"{visible(case.run)}#{case.number}",
                },
            }
            if case.cycle is not None:
                test["duration"] = max(0.0, case.wall_s)
            if text := excerpt(case, _LOG_EXCERPT_MAX):
                test["log_excerpt"] = text
            tests.append(test)
        tests.extend(_sizes(origin, results, suite))
    return tests


def kcidb_json(results: Results, origin: str = "panic_farm") -> str:
    """Write the results as one KCIDB submission of ``origin``, the name of the CI system.

    Raises UsageError for an ``origin`` that KCIDB does not allow.
    """
    if not re.fullmatch("[a-z0-9_]+", origin):
        raise UsageError(f"--origin {origin!r}: KCIDB allows a-z, 0-9 and _ only")
    kernels = {_build_id(origin, suite.kernel): suite.kernel for suite in results.suites}
    checkouts = {
        f"{origin}:{visible(kernel.release or kernel.label, ascii_only=True)}": kernel
        for kernel in kernels.values()
    }
    report = {
        "version": {"major": 5, "minor": 3},
        "checkouts": [
            {
                "id": checkout,
                "origin": origin,
                "comment": f"{visible(kernel.release or kernel.label)} with the panicdump series",
                "valid": True,
            }
            for checkout, kernel in checkouts.items()
        ],
        "builds": [
            {
                "checkout_id": f"{origin}:"
                f"{visible(kernel.release or kernel.label, ascii_only=True)}",
                "id": build,
                "origin": origin,
                "comment": visible(kernel.label),
                "config_name": visible(kernel.label),
                "status": "PASS",
                "misc": {
                    "release": visible(kernel.release),
                    "build_id": visible(kernel.build_id),
                    "sha256": {
                        visible(name): visible(value) for name, value in kernel.sha256.items()
                    },
                },
            }
            for build, kernel in kernels.items()
        ],
        "tests": _tests(origin, results),
    }
    return json.dumps(report, indent=1) + "\n"
