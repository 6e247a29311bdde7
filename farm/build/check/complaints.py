"""What the compiler, sparse, kernel-doc, kbuild and checkpatch say, and what of it is new.

All but checkpatch write ``file:line: warning: text``; kbuild and modpost write ``WARNING: text``.
What the base source has, too, is not the series' fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

_AT_FILE = re.compile(
    r"^(?P<file>[^\s:]+?):(?:(?P<line>\d+):)?(?:\d+:)? ?"
    r"(?:warning|error|fatal error): ?(?P<text>.*)"
)
_AT_LARGE = re.compile(r"^(?:WARNING|ERROR): (?P<text>.*)")
# An offset into a function moves with every change of it.
_OFFSET = re.compile(r"\+0x[0-9a-f]+")
_CHECKPATCH_TOTALS = re.compile(r"^total: (\d+) errors, (\d+) warnings, (\d+) checks", re.MULTILINE)
_CHECKPATCH_FINDING = re.compile(r"^(?:ERROR|WARNING|CHECK):[A-Z0-9_]+: ")
_CHECKPATCH_LINE = re.compile(r"^#(\d+):")
_LINKED = frozenset({"vmlinux", "vmlinux.o"})


@dataclass(frozen=True)
class Complaint:
    """One complaint: the file in the source tree ("": none in particular), its line, the text."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.file else self.text


def read(lines: Iterable[str], tree: str, files: Iterable[str] | None = None) -> list[Complaint]:
    """Return the complaints in ``lines`` about ``files`` and about the kernel as a whole.

    Names are made relative to ``tree``; without ``files`` every file counts. A header's complaint
    appears once, however many files include it.
    """
    wanted = None if files is None else frozenset(files)
    found: dict[Complaint, None] = {}
    for line in lines:
        told = _AT_FILE.match(line)
        if told is not None:
            name = _in_tree(told["file"], tree)
            if wanted is None or name in wanted or name in _LINKED:
                found[Complaint(name, int(told["line"] or 0), _steady(told["text"]))] = None
            continue
        told = _AT_LARGE.match(line)
        if told is not None:
            found[Complaint("", 0, _steady(told["text"]))] = None
    return list(found)


def new(now: Iterable[Complaint], before: Iterable[Complaint]) -> list[Complaint]:
    """Return those of ``now`` that ``before`` does not have as often in that file, at any line."""
    left = Counter((one.file, one.text) for one in before)
    fresh = []
    for one in now:
        if left[one.file, one.text]:
            left[one.file, one.text] -= 1
        else:
            fresh.append(one)
    return fresh


def checkpatch(text: str) -> list[str]:
    """Return what ``checkpatch --show-types`` found, each with the patch's line.

    Raises ``ValueError`` if the totals are missing or count more than was found.
    """
    lines = text.splitlines()
    found = []
    for line, after in zip_longest(lines, lines[1:], fillvalue=""):
        if _CHECKPATCH_FINDING.match(line):
            place = _CHECKPATCH_LINE.match(after)
            found.append(f"line {place[1]}: {line}" if place is not None else line)
    totals = _CHECKPATCH_TOTALS.search(text)
    if totals is None:
        raise ValueError(f"checkpatch gave no totals: {text.strip()[-400:]!r}")
    # An exit code of 0 would not be enough: checks are told apart only here.
    counted = sum(int(count) for count in totals.groups())
    if counted > len(found):
        raise ValueError(f"checkpatch counts {counted} faults and names {len(found)}")
    return found


def _in_tree(name: str, tree: str) -> str:
    name = name.removeprefix(tree.rstrip("/") + "/").removeprefix("./")
    while name.startswith("../"):
        name = name.removeprefix("../")
    # objtool speaks of the object.
    return name.removesuffix(".o") + ".c" if name.endswith(".o") and "/" in name else name


def _steady(text: str) -> str:
    return _OFFSET.sub("", text).strip()
