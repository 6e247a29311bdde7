"""The board's shell over the console: a script runs in one round trip, checked by a checksum."""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import shlex
from typing import Any, NamedTuple

import attr
from labgrid.driver.commandmixin import CommandMixin
from labgrid.driver.common import Driver
from labgrid.factory import target_factory
from labgrid.protocol import CommandProtocol

from farm.bench.console import RecordedConsole
from farm.bench.recording import printable
from farm.errors import BenchError, DeadlineError, UsageError

# A terminal in canonical mode cuts a line at 4096 bytes (drivers/tty/n_tty.c).
LINE_LIMIT_BYTES = 3000
PANIC_PATTERN = rb"\] Kernel panic - not syncing: [^\r\n]*"

_FOLDED = 76
_ANSWER_DEADLINE_S = 2.0
_LOG = logging.getLogger(__name__)
_INTERRUPT = b"\x03"


class ScriptResult(NamedTuple):
    """What a script wrote to standard output and error, and its exit status."""

    output: str
    status: int


def typeable(script: str) -> str:
    """``script`` as one shell word of lines that a terminal takes; longer ones need base64."""
    if all(len(line.encode()) < LINE_LIMIT_BYTES for line in script.split("\n")):
        return shlex.quote("\n" + script)
    text = base64.b64encode(script.encode()).decode()
    folded = "\n".join(text[at : at + _FOLDED] for at in range(0, len(text), _FOLDED))
    return f"\"$(printf %s '\n{folded}' | base64 -d)\""


def safe_word(word: str) -> str:
    """``word``, quoted for the board's shell; UsageError for what a terminal would act on."""
    if not word.isprintable():
        raise UsageError(f"{word!r} holds characters that cannot be typed on a console")
    return shlex.quote(word)


@target_factory.reg_driver
@attr.s(eq=False)
class BoardShell(CommandMixin, Driver, CommandProtocol):  # type: ignore[misc]  # labgrid: no types
    """A shell that waits at a prompt without a login; ``prompt`` is a regular expression.

    The board needs a POSIX shell, printf and md5sum. An empty ``prompt`` takes the one in the
    target's options.
    """

    bindings = {"console": RecordedConsole}  # noqa: RUF012  # labgrid's way

    prompt: str = attr.ib(default="", validator=attr.validators.instance_of(str))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._quiet = False
        if not self.prompt and self.target.env is not None:
            config = self.target.env.config
            self.prompt = str(config.get_target_option(self.target.name, "prompt", default=""))
        if not self.prompt:
            raise UsageError(
                f"the target {self.target.name} has no prompt",
                "Add `prompt`, a regular expression, to the target's options.",
            )

    def wait_prompt(self, deadline_s: float, what: str = "the shell's prompt") -> float:
        """Wait for the prompt of a fresh boot; returns when it arrived (monotonic, seconds)."""
        self._quiet = False
        return float(self.console.wait_for(self.prompt, deadline_s, what).at)

    def fresh_boot(self) -> None:
        """Say that the board has booted: what was set by ``dmesg -n`` is lost."""
        self._quiet = False

    def answers(self, deadline_s: float) -> bool:
        """Whether the shell answers within ``deadline_s`` seconds; a running command is ended.

        Raises BenchError(part="serial") when the port is gone.
        """
        first, second = secrets.token_hex(4), secrets.token_hex(4)
        self.console.mark()
        # The first line feed ends what a half-typed line would otherwise swallow.
        self.console.write(_INTERRUPT + f"\nprintf '%s-%s\\n' {first} {second}\n".encode())
        try:
            self.console.wait_for(f"{first}-{second}\r?\n", deadline_s, "an answer of the shell")
            self.console.wait_for(self.prompt, deadline_s, "the shell's prompt")
        except BenchError as error:
            if error.part != "board":
                raise
            return False
        return True

    def execute(
        self, script: str, deadline_s: float, *, what: str = "a script", idempotent: bool = True
    ) -> ScriptResult:
        """Run ``script`` in a subshell, in one round trip, and return its output and status.

        NUL bytes and trailing line ends are lost. A damaged output, e.g. with a kernel message in
        it, is fetched again once if the script is ``idempotent``. Raises DeadlineError
        (part="board"), BenchError (part="serial", "shell"; "board" when the board panics).
        """
        for _ in range(2 if idempotent else 1):
            result = self._attempt(script, deadline_s, what)
            if result is not None:
                return result
            self._quiet = False
            _LOG.warning("the output of %s arrived damaged over the serial line", what)
        raise BenchError(
            f"the output of {what} arrived damaged",
            part="serial",
            next_step="See console.raw; a slower line or less kernel chatter helps.",
        )

    def _attempt(self, script: str, deadline_s: float, what: str) -> ScriptResult | None:
        first, second = secrets.token_hex(4), secrets.token_hex(4)
        quiet = "" if self._quiet else "dmesg -n 1 2>/dev/null; "
        # The end is said twice, for a kernel message may fall into it. A quoted token never
        # shows up in the echo of what is typed, for there its halves stand apart.
        end = "%s+%s %s %s\\n"
        typed = (
            f"{quiet}o=$(eval {typeable(script)} 2>&1); r=$?; "
            'm=$(printf %s "$o" | md5sum); m=${m%% *}\n'
            f"printf '\\n%s-%s\\n%s\\n{end}{end}' {first} {second} \"$o\" "
            f"{first} {second} $r $m {first} {second} $r $m\n"
        )
        self.console.mark()
        self.console.write(typed.encode())
        done = rf"{first}\+{second} ([0-9]+) ([0-9a-f]{{32}})\r?\n"
        begin = f"{first}-{second}".encode()
        ends = [done, PANIC_PATTERN]
        try:
            seen = self.console.wait_for(ends, deadline_s, f"the end of {what}")
        except DeadlineError as late:
            # What was typed comes after the script, and what it says is nothing but its answer, as
            # a prompt may be: so it is seen which was there first.
            self.console.write(f"printf '%s-%s\\n' {second} {first}\n".encode())
            ends.append(rf"{second}-{first}\r?\n")
            try:
                seen = self.console.wait_for(ends, _ANSWER_DEADLINE_S, "an answer of the shell")
            except DeadlineError:
                raise late from None
            if seen.index == 2:
                # The script has ended, and the line has lost the word of it.
                return None
        if seen.index == 1:
            words = printable(seen.matched[2:])
            raise BenchError(
                f"the board panicked while it ran {what}: {words}",
                part="board",
                next_step="See console.log.",
            )
        self._quiet = True
        _, found, rest = seen.before.partition(begin)
        # The terminal has put a carriage return before each line feed.
        output = rest.replace(b"\r\n", b"\n")
        if not found or output[:1] != b"\n" or output[-1:] != b"\n":
            return None
        output = output[1:-1]
        status, checksum = (one.decode() for one in seen.groups if one is not None)
        if hashlib.md5(output, usedforsecurity=False).hexdigest() != checksum:
            return None
        return ScriptResult(output.decode("utf-8", errors="backslashreplace"), int(status))

    def run_script(
        self, script: str, deadline_s: float, *, what: str = "a script", idempotent: bool = True
    ) -> str:
        """Run ``script`` as ``execute`` does and return its output.

        Raises BenchError(part="shell") when its exit status is not 0.
        """
        result = self.execute(script, deadline_s, what=what, idempotent=idempotent)
        if result.status != 0:
            words = result.output.strip().splitlines()
            raise BenchError(
                f"{what} failed on the board with status {result.status}: "
                f"{words[-1] if words else 'it said nothing'}",
                part="shell",
            )
        return result.output

    def start(self, script: str) -> str:
        """Type ``script`` to run in a subshell, output unchecked; returns the end's pattern."""
        first, second = secrets.token_hex(4), secrets.token_hex(4)
        self.console.mark()
        typed = f"(eval {typeable(script)}); printf '%s=%s\\n' {first} {second}\n"
        self.console.write(typed.encode())
        return rf"{first}={second}\r?\n"

    def run(
        self,
        cmd: str,
        *,
        timeout: float = 30.0,
        codec: str = "utf-8",
        decodeerrors: str = "strict",
    ) -> tuple[list[str], list[str], int]:
        """labgrid's CommandProtocol: (lines of output, [], exit status)."""
        return self._run(cmd, timeout=timeout, codec=codec, decodeerrors=decodeerrors)

    def _run(
        self, cmd: str, *, timeout: float, codec: str, decodeerrors: str
    ) -> tuple[list[str], list[str], int]:
        result = self.execute(cmd, timeout, what=repr(cmd), idempotent=False)
        return result.output.split("\n") if result.output else [], [], result.status

    def get_status(self) -> int:
        """labgrid's CommandProtocol: 1 when the shell can be used."""
        return 1

    def resolve_conflicts(self, client: Any) -> None:
        """Nothing: scripts do not overlap."""
