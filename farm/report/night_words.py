"""What a night says in plain words: what a lead reads first."""

from __future__ import annotations

from farm.model import Finding, FindingKind, Night, Verdict
from farm.report.night_view import Cause, Cell, NightView, Shot
from farm.report.printable import visible

__all__ = ["cause_text", "counts_text", "failure_text", "headline_of", "places_text", "plural"]

_NAME_LIMIT = 80


def _name(text: str) -> str:
    return visible(text, limit=_NAME_LIMIT)


def plural(count: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _device_text(finding: Finding) -> str:
    evidence = finding.evidence
    region = (
        "" if evidence is None or not evidence.region else f" of region {_name(evidence.region)}"
    )
    at = None if evidence is None else evidence.region_offset
    if at is None and evidence is not None:
        at, region = evidence.offset, ""
    where = "" if at is None else f" at offset {at:#x}{region}"
    wrong = None if evidence is None else evidence.wrong_bytes
    match finding.kind:
        case FindingKind.TRUNCATED if wrong:
            return f"record truncated by {plural(wrong, 'byte')}{where}"
        case FindingKind.CORRUPT if wrong:
            return f"record wrong in {plural(wrong, 'byte')}, first{where}"
        case FindingKind.CORRUPT if evidence is not None and where and not evidence.region:
            return f"record damaged outside of its regions{where}"
        case FindingKind.TORN | FindingKind.TRUNCATED if where:
            return f"record {finding.kind.value}{where}"
    message = visible(finding.message, limit=300)
    prefix = f"{visible(finding.device or '')}: "
    return message.removeprefix(prefix)


def failure_text(shot: Shot) -> str:
    """Say what failed in one cycle: the driver, what became of its record, where."""
    finding = shot.worst
    if finding is None:
        return visible(shot.night.why, limit=300)
    if finding.driver is None:
        return visible(finding.message, limit=300)
    driver, device = _name(finding.driver), _name(finding.device or "")
    of = f" ({device})" if device and device != driver else ""
    return f"driver {driver}{of}: {_device_text(finding)}"


def where_text(cell: Cell) -> str:
    """Say in which cell."""
    key = cell.key
    return (
        f"in scenario {_name(key.scenario)} on board {_name(key.board)} "
        f"with kernel {_name(key.kernel)}"
    )


def cause_text(cause: Cause) -> str:
    """Say what failed, and where it was seen first."""
    cell, shot = cause.first
    return f"{failure_text(shot)} {where_text(cell)}"


def _some(names: tuple[str, ...], noun: str) -> str:
    shown = ", ".join(_name(name) for name in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{noun}{'' if len(names) == 1 else 's'} {shown}{more}"


def places_text(cause: Cause) -> str:
    """Say how often and where a cause was seen."""
    return (
        f"{plural(len(cause.shots), 'cycle')}: {_some(cause.scenarios, 'scenario')}; "
        f"{_some(cause.boards, 'board')}; {_some(cause.kernels, 'kernel')}"
    )


def _unfinished(night: Night) -> str:
    if not (night.interrupted or night.ended_early):
        return "" if night.finished else " The night has not finished yet."
    end = "was interrupted" if night.interrupted else "ended early"
    reason = f": {visible(night.ended_early, limit=300)}" if night.ended_early else ""
    return f" The night {end}{reason}."


def headline_of(view: NightView) -> str:
    """Say the night's outcome in one sentence, the worst thing first."""
    cells = len(view.cells)
    passed = view.count(Verdict.PASS)
    if view.kernel_causes:
        text = cause_text(view.kernel_causes[0])
        return f"{text[0].upper()}{text[1:]}."
    if view.bench_causes:
        cell, shot = view.bench_causes[0].first
        return (
            f"The bench failed in {plural(view.count(Verdict.ERROR), 'cell')} of {cells}, "
            f"first {where_text(cell)}: {visible(shot.night.why, limit=200)}."
        )
    if not passed:
        return "Nothing was proven: no cell of the plan ran to a verdict."
    boards = len({cell.key.board for cell in view.cells if cell.verdict is Verdict.PASS})
    kernels = len({cell.key.kernel for cell in view.cells if cell.verdict is Verdict.PASS})
    scope = f"all {cells} cells" if passed == cells else f"{passed} of {cells} cells"
    return (
        f"Every expected dump arrived intact in {scope}, on {plural(boards, 'board')} "
        f"with {plural(kernels, 'kernel')}."
    )


def counts_text(view: NightView) -> str:
    """Say how the whole matrix came out, in one sentence that follows the headline."""
    cells = len(view.cells)
    parts = []
    if failed := view.count(Verdict.FAIL):
        parts.append(f"the kernel failed in {failed} of {plural(cells, 'cell')}")
        others = len(view.kernel_causes) - 1
        if others:
            parts.append(f"{plural(others, 'other cause')} of failure beside this one")
    if errors := view.count(Verdict.ERROR):
        parts.append(
            f"the bench failed in {plural(errors, 'cell')}, which says nothing about the kernel"
        )
    if skipped := view.count(Verdict.SKIP):
        parts.append(f"{plural(skipped, 'cell')} not possible on their boards")
    if holes := view.count(None):
        parts.append(f"{plural(holes, 'cell')} never ran")
    if passed := view.count(Verdict.PASS):
        parts.append(f"{plural(passed, 'cell')} passed")
    text = "; ".join(parts) or "there is no cell in this night"
    return f"{text[0].upper()}{text[1:]}.{_unfinished(view.night)}"
