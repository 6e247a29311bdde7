"""The bundle: a folder that holds a sign-off, its evidence and its manifest, written whole or not.

    signoff.html, signoff.pdf     to read and to sign
    signoff.json                  the same for programs
    policy.yaml                   the policy as it was read
    cycles.csv                    every cycle that counts
    evidence/<run>/               runs with the cited cycles, as `farm judge` reads them
    blocks.json                   short hashes of each 4 KiB
    MANIFEST.sha256, .sig         sha256 of every file above; its signature

It is made beside its place under another name, and moved there when all of it is on the disk.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from farm.errors import BenchError, UsageError
from farm.export.sizes import safe_cell
from farm.report.printable import visible
from farm.signoff.clauses import Clause, Decision, Problem
from farm.signoff.evidence import CitedCycle, copy_evidence
from farm.signoff.facts import Fact
from farm.signoff.manifest import SIGNATURE, write_manifest
from farm.signoff.page import Page, page_html
from farm.signoff.policy import SignoffPolicy
from farm.signoff.printer import Printer
from farm.signoff.provenance import Hash, tool_versions
from farm.signoff.signature import sign

__all__ = ["write_bundle"]

_SCHEMA_VERSION = 1


def _plain(value: Any) -> Any:
    """What json cannot write, in what it can; text is made visible, for it may be of a board."""
    if isinstance(value, dict):
        return {visible(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return visible(str(value))
    if isinstance(value, date | Path):
        return visible(str(value))
    return value


def _clause_json(clause: Clause) -> dict[str, Any]:
    problems = [
        {
            **asdict(replace(one, waiver=None)),
            "waiver": one.waiver.model_dump(mode="json") if one.waiver else None,
        }
        for one in clause.problems
    ]
    return {**asdict(replace(clause, problems=())), "word": clause.word, "problems": problems}


def _account(page: Page) -> dict[str, Any]:
    decision = page.decision
    return {
        "schema_version": _SCHEMA_VERSION,
        "decision": decision.label,
        "go": decision.go,
        "virtual": decision.virtual,
        "counts_as_hardware": decision.go and not decision.virtual,
        "made": page.made.isoformat(timespec="seconds"),
        "policy": page.policy.model_dump(mode="json"),
        "build_ids": decision.build_ids,
        "releases": decision.releases,
        "clauses": [_clause_json(one) for one in decision.clauses],
        "cells": [asdict(one) | {"hole": one.hole} for one in decision.cells],
        "sizes": [asdict(one) for one in decision.sizes],
        "failure_rate": [asdict(one) for one in decision.bounds],
        "waivers_unused": [one.model_dump(mode="json") for one in decision.unused_waivers],
        "waivers_expired": [one.model_dump(mode="json") for one in decision.expired_waivers],
        "not_counted": decision.not_counted,
        "notes": decision.notes,
        "hashes": [asdict(one) for one in page.hashes],
        "tools": page.tools,
        "source": page.source,
        "cited": [
            {
                "cycle": one.fact.id,
                "verdict": one.fact.verdict.value,
                "scenario": one.fact.scenario,
                "board": one.fact.board,
                "virtual": one.fact.virtual,
                "page": one.page,
                "left_out": one.left_out,
                "problem": one.problem,
            }
            for one in page.cited
        ],
        "counted_cycles": len(decision.counted),
    }


_COLUMNS = (
    *("cycle", "night", "started", "build_id", "release", "board", "virtual", "scenario"),
    *("channels", "repeat", "verdict", "why"),
)


def _cycles_csv(facts: tuple[Fact, ...]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    # Many lines, few different words.
    cell = cache(safe_cell)
    channels = cache(lambda read: safe_cell("+".join(sorted(read))))
    writer.writerow(_COLUMNS)
    writer.writerows(
        (
            *(safe_cell(one.id), cell(one.night_id), safe_cell(one.started), one.build_id),
            *(cell(one.release), cell(one.board), "virtual" if one.virtual else "hardware"),
            *(cell(one.scenario), channels(one.channels), one.repeat),
            *(one.verdict, cell(one.why)),
        )
        for one in facts
    )
    return out.getvalue()


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder to build in; it becomes ``out`` when nothing was raised, else nothing is left."""
    if out.exists() or out.is_symlink():
        raise UsageError(
            f"{out} exists already", "A sign-off is never written over: choose another --out."
        )
    made: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name[:60]}.part-", dir=out.parent))
        yield made
        made.chmod(0o755)
        for path in sorted(made.rglob("*")):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        # Fails when somebody was faster: a folder that is not empty is never replaced.
        made.rename(out)
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise BenchError(
            f"cannot write {out}: {what}",
            part="disk",
            next_step="Nothing was left behind; make room, or choose another folder with --out.",
        ) from error
    finally:
        if made is not None and made.exists():
            shutil.rmtree(made, ignore_errors=True)


def _evidence_clause(cited: list[CitedCycle]) -> Clause:
    problems = tuple(
        Problem("evidence", one.problem, one.fact.board, one.fact.scenario, cited=(one.fact.id,))
        for one in cited
        if one.problem
    )
    whole = len(cited) - len(problems)
    return Clause(
        "evidence",
        "every cited cycle can be shown, is unchanged, and judged again has the same verdict",
        f"{whole} of {len(cited)} cited cycles",
        problems,
    )


def write_bundle(
    policy: SignoffPolicy,
    policy_file: Path,
    decision: Decision,
    out: Path,
    *,
    hashes: tuple[Hash, ...],
    source: str,
    key: Path | None = None,
    printer: Printer | None = None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Write the bundle to ``out``, which must not exist; evidence decides with the other clauses.

    ``printer`` may have been started earlier. ``done`` is called after each cited cycle. Raises
    UsageError for ``out`` or ``key``, BenchError (part ``disk``) when it cannot be written;
    neither leaves anything behind.
    """
    facts = {one.id: one for one in decision.counted}
    with _beside(out) as made, printer or Printer() as printing:
        wanted = [facts[one] for one in decision.cited_ids() if one in facts]
        cited = copy_evidence(wanted, made, done)
        decision.clauses.append(_evidence_clause(cited))
        decision.conclude(any_hardware=decision.any_hardware)
        page = Page(
            policy=policy,
            decision=decision,
            cited=cited,
            hashes=hashes,
            tools={
                **tool_versions(),
                "farm that ran it": ", ".join(
                    sorted({one.farm_version for one in cited if one.farm_version})
                )
                or "not known",
            },
            source=source,
            made=datetime.now(UTC),
            signed_by=f"by ssh-keygen, in {SIGNATURE}" if key else "not signed when it was made",
        )
        (made / "signoff.html").write_text(page_html(page), encoding="utf-8")
        printing.begin(made / "signoff.html")
        text = json.dumps(_plain(_account(page)), indent=1) + "\n"
        (made / "signoff.json").write_text(text, encoding="utf-8")
        shutil.copyfile(policy_file, made / "policy.yaml")
        (made / "cycles.csv").write_text(
            _cycles_csv(decision.counted), encoding="utf-8", newline=""
        )
        (made / "signoff.pdf").write_bytes(printing.pdf())
        write_manifest(made)
        if key is not None:
            sign(made, key)
