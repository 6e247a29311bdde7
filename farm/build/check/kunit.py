"""KUnit in QEMU, by the kernel's own runner, and what that reports at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.build import process
from farm.build.check.ledger import Outcome, Step
from farm.build.check.workshop import Workshop
from farm.build.kernel import ARM64, ccache, compiler_version
from farm.errors import BuildError

_CONFIG = Path("kernel/panicdump/.kunitconfig")
_TIMEOUT_S = 600
_COUNTED = re.compile(r"Testing complete\. Ran (?P<ran>\d+) tests: (?P<totals>.*)")
_TOTAL = re.compile(r"(\w+): (\d+)")
_FAILED = re.compile(r"\[(?:FAILED|CRASHED|ERROR)\] (?P<name>\S+)")
_PHASE = re.compile(r"(?:Configuring|Building|Starting) KUnit Kernel")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Totals:
    """How many cases ran, how many did what, and which did not pass."""

    ran: int
    by_result: dict[str, int]
    failed: tuple[str, ...]

    @property
    def passed(self) -> int:
        """How many passed."""
        return self.by_result.get("passed", 0)


def totals(lines: Sequence[str]) -> Totals:
    """Return the totals; raises ``ValueError`` if the runner did not come to its end."""
    plain = [_COLOUR.sub("", line) for line in lines]
    counted = [told for line in plain if (told := _COUNTED.search(line))]
    if not counted:
        raise ValueError("the runner gave no totals")
    last = counted[-1]
    failed = [told["name"] for line in plain if (told := _FAILED.search(line))]
    numbers = {name: int(count) for name, count in _TOTAL.findall(last["totals"])}
    return Totals(int(last["ran"]), numbers, tuple(dict.fromkeys(failed)))


def cases(work: Workshop) -> Step:
    """Every KUnit case of the series passes on arm64, in QEMU."""

    def act(log: Path) -> Outcome:
        work.go_to(work.whole)
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            if (phase := _PHASE.search(line)) is not None:
                work.progress.say(f"{work.base} kunit: {phase[0]}")

        failed: BuildError | None = None
        try:
            process.run(
                [
                    "python3",
                    "tools/testing/kunit/kunit.py",
                    "run",
                    "--arch=arm64",
                    f"--cross_compile={ARM64.prefix}",
                    f"--make_options=CC=ccache {ARM64.compiler}",
                    f"--kunitconfig={_CONFIG}",
                    f"--build_dir={work.out('kunit')}",
                    f"--jobs={work.request.jobs}",
                    f"--timeout={_TIMEOUT_S}",
                ],
                what="KUnit",
                log=log,
                cwd=work.tree,
                # Or it would tell all at its end.
                env=ccache(work.compiled) | {"PYTHONUNBUFFERED": "1"},
                on_line=on_line,
            )
        except BuildError as error:
            failed = error
        try:
            counted = totals(lines)
        except ValueError as error:
            raise failed or BuildError(str(error), log=str(log)) from None
        faults = [f"{name} failed" for name in counted.failed]
        if not faults and (not counted.ran or counted.passed != counted.ran):
            told = ", ".join(f"{count} {name}" for name, count in counted.by_result.items())
            faults = [f"of {counted.ran} cases: {told}"]
        return Outcome(f"{counted.passed} of {counted.ran} cases", tuple(faults))

    qemu = process.output(["qemu-system-aarch64", "--version"], what="QEMU").decode()
    key = work.key("kunit", qemu, compiler_version(ARM64))
    return Step(work.base, "kunit", "arm64, in QEMU", key, act)
