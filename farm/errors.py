"""Errors that say whose fault it is and what to do next.

The exit code of ``farm`` follows from the class: wrong use or configuration is 2, a bench that
failed is 3. A failing kernel is not an error but a verdict, and ends with 1.
"""

from __future__ import annotations

import re

# A password in an address, and what is called like one in a query or a connection string.
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]*@")
_NAMED_SECRET = re.compile(
    r"(?i)\b((?:[\w.-]*_)?(?:password|passwd|pwd|pass|token|secret|api_?key|auth)=)[^\s&'\"]+"
)


def masked(text: str) -> str:
    """``text`` without the passwords of addresses in it, as power switches and databases have them.

    What is stored or shown of a command line or an error goes through this.
    """
    return _NAMED_SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def plain_text(text: str) -> str:
    """``text`` without passwords, and with what a terminal would act on shown as its number.

    What a board or another host said goes through this before it is printed.
    """
    text = masked(text)
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


class FarmError(Exception):
    """Something that a user of the farm can understand and act on.

    ``message`` says what is wrong, naming the file, offset or board; ``next_step`` what to do.
    Both are safe to print, whatever of a board they quote.
    """

    exit_code = 2

    def __init__(self, message: str, next_step: str = "") -> None:
        self.message = plain_text(message)
        self.next_step = plain_text(next_step)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message


class UsageError(FarmError):
    """Wrong use or configuration: an option, a YAML file, a missing build."""


class BuildError(FarmError):
    """The kernel or its user space could not be built; ``log`` names the build's log."""

    def __init__(self, message: str, *, log: str = "", next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.log = log


class FormatError(FarmError):
    """Bytes that are not what they should be; ``offset`` from the start, in bytes (text: lines)."""

    def __init__(self, message: str, *, offset: int, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.offset = offset


class BenchError(FarmError):
    """The bench failed, not the kernel; ``part`` names which: serial, power, board, shell, disk."""

    exit_code = 3

    def __init__(self, message: str, *, part: str, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.part = part


class DeadlineError(BenchError):
    """A wait with a named deadline ran out; ``silent``: not one byte came in that time."""

    def __init__(
        self,
        what: str,
        *,
        part: str,
        deadline_s: float,
        last: str = "",
        next_step: str = "",
        silent: bool = False,
    ) -> None:
        message = f"{part}: {what} did not happen within {deadline_s:g} s"
        if last:
            message += f"; the last console line was {last!r}"
        super().__init__(message, part=part, next_step=next_step)
        self.what = what
        self.deadline_s = deadline_s
        self.silent = silent
