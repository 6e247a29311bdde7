"""What every page shares: one look, one set of macros, one way to show a value or to link a file.

Jinja2 escapes every value; names and console lines pass through `visible` first, so that a
control character or a turned writing direction shows up instead of taking effect. A content
security policy in each page forbids scripts and loads, should escaping have missed something.
Names of files and anchors are the farm's own, never a board's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from farm.model import BenchFault, Cycle, DeviceVerdict, Manifest, PanicAccount
from farm.report.console import console_excerpt
from farm.report.printable import (
    console_text,
    duration_text,
    exact_size_text,
    ratio_text,
    size_text,
    visible,
)
from farm.report.summary import finding_label, in_full, shown_findings

__all__ = ["environment", "link_below", "local_link", "render", "style"]

Link = Callable[..., str | None]


def local_link(*parts: str) -> str | None:
    """Make a relative URL from paths; None when they lead out of the folder they start in."""
    path = PurePosixPath(*parts)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in str(path):
        return None
    # With ':' quoted too, no part can be taken for a scheme.
    return quote(str(path), safe="/", errors="backslashreplace")


def link_below(*folder: str, up: int = 0) -> Link:
    """Return what links to files below ``folder``, which lies ``up`` levels above the page."""

    def link(*parts: str) -> str | None:
        url = local_link(*folder, *parts)
        return None if url is None else "../" * up + url

    return link


def percent(part: float, whole: float) -> str:
    """Write a share for a bar's width, within 0 and 100."""
    return "0" if whole <= 0 else f"{min(100.0, max(0.0, 100 * part / whole)):.2f}"


def bar_scale(rows: tuple[DeviceVerdict, ...]) -> int:
    """Find the size that is a full bar: the largest record or budget of the table."""
    return max((max(row.record_bytes, row.budget_bytes or 0) for row in rows), default=0)


def stage_bars(cycle: Cycle) -> list[tuple[str, str, str, str]]:
    """Lay the stages one after another: name, duration, start and width in percent."""
    total = sum(max(0.0, seconds) for seconds in cycle.stages_s.values())
    bars = []
    at = 0.0
    for name, seconds in cycle.stages_s.items():
        bars.append((name, duration_text(seconds), percent(at, total), percent(seconds, total)))
        at += max(0.0, seconds)
    return bars


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """List what the live board said just before the panic."""
    nonce = "none" if manifest.nonce is None else f"{manifest.nonce:#018x}"
    facts = [
        ("kernel release", manifest.kernel_release),
        ("build id", manifest.build_id or "none"),
        ("boot id", manifest.boot_id),
        ("panics before", str(manifest.sequence)),
        ("nonce", nonce),
        ("record format", manifest.format),
        ("on overflow", manifest.on_overflow),
        ("backend", manifest.backend),
        ("area", size_text(manifest.area_bytes)),
        ("capacity", exact_size_text(manifest.capacity_bytes)),
        ("needed", exact_size_text(manifest.needed_bytes)),
        ("devices", str(len(manifest.devices))),
        ("command line", manifest.cmdline),
    ]
    if (region := manifest.ramoops) is not None:
        facts.append(
            (
                "ramoops",
                f"{size_text(region.mem_size_bytes)} at {region.mem_address:#x}, "
                f"panicdump zone {size_text(region.panicdump_size_bytes)}, "
                f"ECC {region.ecc_size_bytes} B per block",
            )
        )
    return facts


def panic_facts(panic: PanicAccount) -> list[tuple[str, str]]:
    """List how the board went down and came back."""
    facts = [
        ("trigger", panic.trigger),
        ("panic line", panic.panic_line or "none"),
        ("scenario's signature", "found" if panic.signature_found else "not found"),
        ("reset", panic.reset),
        ("release after", panic.release_after or "unknown"),
        ("build id after", panic.build_id_after or "unknown"),
        ("boot id after", panic.boot_id_after or "unknown"),
    ]
    if panic.panic_to_reset_s is not None:
        facts.append(("panic to reset", duration_text(panic.panic_to_reset_s)))
    if panic.reset_to_shell_s is not None:
        facts.append(("reset to shell", duration_text(panic.reset_to_shell_s)))
    return facts


def fault_facts(fault: BenchFault) -> list[tuple[str, str]]:
    """List what the bench said of its own failure."""
    facts = [("part", fault.part), ("stage", fault.stage), ("message", fault.message)]
    if fault.place:
        facts.append(("found at", fault.place))
    return [*facts, ("next step", fault.next_step)] if fault.next_step else facts


@cache
def environment(room: str = "farm.report") -> Environment:
    """Return what renders the templates of ``room``, which may build on those of reports."""
    loaders = [PackageLoader(one) for one in dict.fromkeys((room, "farm.report"))]
    found = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        v=visible,
        exact=exact_size_text,
        size=size_text,
        duration=duration_text,
        console=console_text,
    )
    found.globals.update(
        bar_scale=bar_scale,
        console_excerpt=console_excerpt,
        fault_facts=fault_facts,
        finding_label=finding_label,
        in_full=in_full,
        link_below=link_below,
        manifest_facts=manifest_facts,
        panic_facts=panic_facts,
        percent=percent,
        ratio_text=ratio_text,
        shown_findings=shown_findings,
        stage_bars=stage_bars,
        style_link=None,
    )
    return found


def render(template: str, **values: Any) -> str:
    """Render one of the templates; ``style_link`` names the style's file where it is one."""
    return environment().get_template(template).render(**values)


def style() -> str:
    """Return the style that all pages share."""
    return environment().get_template("style.css").render()
