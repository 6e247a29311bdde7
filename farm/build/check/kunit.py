"""KUnit in QEMU, and what the kernel's own runner makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.build import keys, process
from farm.build.check.builds import compile_kernel
from farm.build.check.ledger import Outcome, Step
from farm.build.check.workshop import BUILT_IN, Workshop
from farm.build.kernel import ARM64
from farm.errors import BuildError

_CONFIG = Path("kernel/panicdump/.kunitconfig")
_TIMEOUT_S = 600
_MACHINE = (
    *("qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
    *("-smp", "2", "-m", "1G", "-nodefaults", "-nographic", "-no-reboot"),
)
_COMMAND_LINE = "console=ttyAMA0 kunit.enable=1 kunit_shutdown=reboot panic=-1"
_COUNTED = re.compile(r"Testing complete\. Ran (?P<ran>\d+) tests: (?P<totals>.*)")
_TOTAL = re.compile(r"(\w+): (\d+)")
_FAILED = re.compile(r"\[(?:FAILED|CRASHED|ERROR)\] (?P<name>\S+)")
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
    """Every KUnit case of the series passes on arm64, in QEMU.

    The kernel is the one that the series makes with all built in, which runs its cases when it
    starts and then ends; the kernel's own runner reads what it said. Its configuration for people,
    which asks for less, has to be one that Kconfig can fulfil.
    """

    def act(log: Path) -> Outcome:
        compile_kernel(
            work, ARM64, BUILT_IN, work.whole, log, whole=True, targets=("Image", "vmlinux")
        )
        folder = work.out("kunit")
        options = ["--arch=arm64", f"--cross_compile={ARM64.prefix}", f"--kunitconfig={_CONFIG}"]
        _runner(work, log, "config", *options, f"--build_dir={folder}")
        console = folder / "console.log"
        console.write_bytes(b"")
        image = work.out(ARM64.name) / "arch/arm64/boot/Image"
        work.progress.say(f"{work.base} kunit: running the cases")
        process.run(
            [
                *("timeout", "--kill-after=10", str(_TIMEOUT_S), *_MACHINE),
                *("-serial", f"file:{console}", "-kernel", str(image), "-append", _COMMAND_LINE),
            ],
            what="KUnit in QEMU",
            log=log,
        )
        lines: list[str] = []
        failed: BuildError | None = None
        try:
            _runner(work, log, "parse", str(console), on_line=lines.append)
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
    key = work.build_key("kunit", ARM64, BUILT_IN) + keys.sha256(qemu.encode())[:8]
    return Step(work.base, "kunit", "arm64, in QEMU", key, act)


def _runner(
    work: Workshop, log: Path, *arguments: str, on_line: Callable[[str], None] | None = None
) -> None:
    process.run(
        ["python3", "tools/testing/kunit/kunit.py", *arguments],
        what=f"kunit.py {arguments[0]}",
        log=log,
        cwd=work.tree,
        on_line=on_line,
    )
