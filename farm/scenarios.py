"""The catalogue of panics: one entry per way to crash a board, and what must follow.

Adding a scenario is adding an entry here. What each trigger leads to was taken from the kernel
sources named beside it (6.12) and tried on the virtual board.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from farm.errors import UsageError
from farm.model import Expect, Frozen


class Trigger(StrEnum):
    """How a panic is injected."""

    SYSRQ_SHELL = "sysrq-shell"
    SERIAL_BREAK = "serial-break"
    LKDTM = "lkdtm"


class Scenario(Frozen):
    """One way to crash a board.

    ``argument`` is the sysrq command character or the LKDTM crash type. ``signature`` is a regular
    expression that the console must show between the trigger and the reset: a board that died of
    something else did not run this scenario. ``requires`` names the features of the labgrid
    environment without which the verdict is SKIP.
    """

    name: str
    summary: str
    trigger: Trigger
    argument: str
    signature: str
    requires: tuple[str, ...] = ()
    expect: Expect = Expect.ALL
    panic_within_s: float = Field(default=15.0, description="from the trigger to the panic line")


CATALOGUE: tuple[Scenario, ...] = (
    Scenario(
        name="sysrq-c",
        summary="c written to /proc/sysrq-trigger by the shell",
        trigger=Trigger.SYSRQ_SHELL,
        argument="c",
        # drivers/tty/sysrq.c, sysrq_handle_crash(): panic() itself, no oops before it
        signature=r"Kernel panic - not syncing: sysrq triggered crash",
        requires=("sysrq",),
    ),
    Scenario(
        name="break-c",
        summary="serial BREAK, then c: needs no shell",
        trigger=Trigger.SERIAL_BREAK,
        argument="c",
        signature=r"Kernel panic - not syncing: sysrq triggered crash",
        requires=("sysrq", "break"),
    ),
    Scenario(
        name="lkdtm-panic",
        summary="LKDTM PANIC: panic() from process context",
        trigger=Trigger.LKDTM,
        argument="PANIC",
        # drivers/misc/lkdtm/bugs.c, lkdtm_PANIC()
        signature=r"Kernel panic - not syncing: dumptest",
        requires=("lkdtm",),
    ),
    Scenario(
        name="lkdtm-bug",
        summary="LKDTM BUG: an oops that oops=panic makes fatal",
        trigger=Trigger.LKDTM,
        argument="BUG",
        signature=r"kernel BUG at \S*drivers/misc/lkdtm/bugs\.c[\s\S]*Kernel panic - not syncing: ",
        requires=("lkdtm",),
    ),
    Scenario(
        name="lkdtm-exception",
        summary="LKDTM EXCEPTION: a NULL pointer dereference",
        trigger=Trigger.LKDTM,
        argument="EXCEPTION",
        # The second is how it looks with KASAN, whose shadow of address 0 is read first.
        signature=r"(?:NULL pointer dereference|KASAN: null-ptr-deref)"
        r"[\s\S]*Kernel panic - not syncing: ",
        requires=("lkdtm",),
    ),
)

_BY_NAME = {scenario.name: scenario for scenario in CATALOGUE}


def scenario_named(name: str) -> Scenario:
    """Return the scenario called ``name``; UsageError lists the names there are."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(
            f"there is no scenario {name!r}",
            f"The scenarios are: {', '.join(sorted(_BY_NAME))}.",
        ) from None
