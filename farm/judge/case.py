"""What the rules about boards, zones and devices share while one cycle is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farm.formats.contents import ContentsEntry, Walk
from farm.judge.dump import Dump
from farm.judge.names import shown
from farm.model import CycleInput, Evidence, Finding, FindingKind, Manifest, Subject, Verdict

__all__ = ["Case", "Comparison", "board_finding", "zone_finding"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A region in a record beside the memory at its registered address.

    Both are of one length, from the region's start; ``file_offset`` is where the memory's begins.
    """

    channel: str
    file: str
    file_offset: int
    memory: bytes
    recorded: bytes

    @property
    def equal(self) -> bool:
        """Whether record and memory hold the same, as far as they were compared."""
        return self.memory == self.recorded


@dataclass(frozen=True, slots=True)
class Case:
    """One cycle with a manifest.

    ``absent`` is set when a missing record says nothing about the kernel: the verdict of such a
    device's line, and why. ``memory`` has what was read of regions' memory, by device id and index.
    """

    cycle: CycleInput
    manifest: Manifest
    dump: Dump
    absent: tuple[Verdict, str] | None = None
    memory: Mapping[tuple[int, int], Comparison] = field(default_factory=dict)

    def entry(self, device_id: int) -> ContentsEntry | None:
        """Return what the contents record says of a device; None without such a record or entry."""
        if self.dump.contents is None or self.dump.contents.contents is None:
            return None
        entries = self.dump.contents.contents.entries
        return next((entry for entry in entries if entry.device_id == device_id), None)

    @property
    def cut_short(self) -> bool:
        """Whether the contents record was written before the last device was seen to."""
        if self.dump.contents is None or self.dump.contents.contents is None:
            return False
        return self.dump.contents.contents.walk is not Walk.COMPLETE


def board_finding(
    kind: FindingKind,
    verdict: Verdict,
    message: str,
    *,
    expected: str | None = None,
    got: str | None = None,
    console_lines: tuple[str, ...] = (),
) -> Finding:
    """Make a finding about the board; texts are escaped here."""
    evidence = None
    if expected is not None or got is not None or console_lines:
        evidence = Evidence(
            expected=None if expected is None else shown(expected),
            got=None if got is None else shown(got),
            console_lines=console_lines,
        )
    return Finding(
        subject=Subject.BOARD,
        kind=kind,
        verdict=verdict,
        message=shown(message, 400),
        evidence=evidence,
    )


def zone_finding(
    kind: FindingKind,
    verdict: Verdict,
    message: str,
    *,
    file: str | None = None,
    offset: int | None = None,
) -> Finding:
    """Make a finding about a zone or a file that is of no device; texts are escaped here."""
    return Finding(
        subject=Subject.ZONE,
        kind=kind,
        verdict=verdict,
        message=shown(message, 400),
        evidence=None if file is None else Evidence(file=file, offset=offset),
    )
