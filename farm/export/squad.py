"""SQUAD's files, as its documentation has them: tests, metrics and metadata of one submission.

A submission belongs to one build and one environment, so a kernel on a board has a folder of its
own, whose name is fit for SQUAD's address: ``/api/submit/:team/:project/:build/:environment``.
SQUAD counts "pass" and "fail" only; "error", "miss" and "skip" it shows as skipped.
"""

from __future__ import annotations

import json
from typing import Any

from farm.export.names import slug
from farm.export.results import Case, Outcome, Results, Suite, rfc3339
from farm.report.printable import visible

__all__ = ["squad_files"]

# SQUAD's rule for identifiers; '/' and brackets have a meaning in the names of tests.
_NAME = "A-Za-z0-9_.-"


def _test_name(case: Case) -> str:
    variant = "+".join(slug(one, _NAME) for one in case.channels)
    return f"panicdump/{slug(case.scenario, _NAME)}[{variant}/{case.repeat}]"


def _metrics(suite: Suite) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for case in suite.cases:
        if case.cycle is None:
            continue
        for row in case.cycle.result.devices:
            if row.record_bytes:
                name = f"record-bytes/{slug(row.driver, _NAME)}"
                values.setdefault(name, []).append(row.record_bytes)
        values.setdefault(f"wall-s/{slug(case.scenario, _NAME)}", []).append(
            round(max(0.0, case.wall_s), 3)
        )
    values.update({f"cycles/{one.value.lower()}": suite.count(one) for one in Outcome})
    return values


def squad_files(results: Results) -> dict[str, str]:
    """Write the results: text by path, ``<build>/<environment>/tests.json`` and so on."""
    files: dict[str, str] = {}
    for suite in results.suites:
        build, board = slug(suite.kernel.label, _NAME), slug(suite.board, _NAME)
        metadata = {
            "job_id": f"{slug(results.name, _NAME)}.{build}.{board}",
            "job_status": results.verdict.value,
            "build": build,
            "environment": board,
            "board": visible(suite.board),
            "virtual": "true: does not count as hardware" if suite.virtual else "false",
            "kernel_release": visible(suite.kernel.release),
            "kernel_build_id": visible(suite.kernel.build_id),
            "farm_version": visible(results.farm_version),
        }
        if (moment := rfc3339(results.started)) is not None:
            metadata["datetime"] = moment.isoformat(timespec="seconds")
        contents: dict[str, Any] = {
            "tests": {_test_name(case): case.outcome.value.lower() for case in suite.cases},
            "metrics": _metrics(suite),
            "metadata": metadata,
        }
        for name, content in contents.items():
            files[f"{build}/{board}/{name}.json"] = json.dumps(content, indent=1) + "\n"
    return files
