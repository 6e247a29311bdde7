"""What a check answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check went; UNKNOWN is no OK: it could not be made."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "not checked"


@dataclass(frozen=True)
class Answer:
    """One check: what was found and, unless it is well, what to do."""

    check: str
    state: State
    what: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The fields as JSON values."""
        return {
            "check": self.check,
            "state": self.state.value,
            "what": self.what,
            "remedy": self.remedy,
        }


def ok(check: str, what: str) -> Answer:
    """All is well."""
    return Answer(check, State.OK, what)


def warning(check: str, what: str, remedy: str) -> Answer:
    """A run can succeed, but not in every case."""
    return Answer(check, State.WARNING, what, remedy)


def wrong(check: str, what: str, remedy: str) -> Answer:
    """A run will fail, or a panic will be lost."""
    return Answer(check, State.WRONG, what, remedy)


def unknown(check: str, why: str, remedy: str = "") -> Answer:
    """This could not be checked."""
    return Answer(check, State.UNKNOWN, why, remedy)
