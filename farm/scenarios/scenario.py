"""What a scenario is: one way to crash a board, what it needs, and what must follow."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import Field, field_validator, model_validator

from farm.model import Expect, ExpectedFault, Frozen


class Trigger(StrEnum):
    """How a panic is injected."""

    SYSRQ_SHELL = "sysrq-shell"
    SERIAL_BREAK = "serial-break"
    LKDTM = "lkdtm"
    COMMAND = "command"
    BOOT = "boot"


class ResetPath(StrEnum):
    """How the board comes back."""

    PANIC = "panic"
    ORDERLY = "orderly reboot"
    EMERGENCY = "emergency restart"
    CRASH_KERNEL = "crash kernel"
    BENCH = "bench reset"


class Before(StrEnum):
    """A panic of the same kind that comes first, and what becomes of its records."""

    COLLECTED = "collected"
    UNCOLLECTED = "uncollected"


class Boot(Frozen):
    """How the boot before the panic must differ from the board's own.

    ``cmdline`` is added to the kernel's command line, ``ecc_bytes`` set in the device tree's
    ramoops node; both hold for ``boots`` boots, then the board is itself again.
    """

    cmdline: str = ""
    ecc_bytes: int | None = Field(default=None, ge=0, le=255)
    boots: int = Field(default=1, ge=1)


class Scenario(Frozen):
    """One way to crash a board.

    ``argument`` is the sysrq command character, LKDTM crash types in a row, each alone or as
    POINT/TYPE, or a shell command. ``signature`` is a regular expression that the console must
    show between the trigger and the reset: a board that died of something else did not run this
    scenario. ``requires`` names features of the labgrid environment; what the kernel must have
    follows from the entry and ``kernel``. Without either the verdict is SKIP.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    group: str
    summary: str
    trigger: Trigger
    argument: str = ""
    signature: str
    quick: bool = Field(default=False, description="in the subset that is run most often")
    requires: tuple[str, ...] = ()
    kernel: tuple[str, ...] = Field(
        default=(), description="`config X`, `command X`, `cpus N`, `file PATH`"
    )
    sysctl: dict[str, str] = Field(default={}, description="written before arming")
    parameters: dict[str, str] = Field(
        default={}, description="MODULE.NAME, written before arming if it can be"
    )
    prepare: str = Field(default="", description="shell command, run before arming")
    commands: tuple[str, ...] = Field(
        default=(), description="commands of the environment, run before arming"
    )
    boot: Boot | None = None
    before: Before | None = None
    dead_shell: bool = Field(default=False, description="the shell is stuck when it happens")
    keystrokes: int = Field(
        default=0, ge=0, description="line feeds sent after the trigger: each is an interrupt"
    )
    cpu: int | None = Field(default=None, ge=0, description="where the trigger runs")
    panics: bool = Field(default=True, description="False: the board resets without a panic")
    reset: ResetPath = ResetPath.PANIC
    expect: Expect = Expect.ALL
    exceptions: tuple[ExpectedFault, ...] = ()
    why: str = Field(default="", description="why not all records follow")
    table: bool = Field(
        default=False, description="the table must be readable in a dump of the memory"
    )
    panic_within_s: float = Field(default=15.0, gt=0, description="from the trigger to the panic")
    reset_after_s: float = Field(default=0.0, ge=0, description="with a bench reset: when it comes")

    @field_validator("signature")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return text

    @model_validator(mode="after")
    def _explained(self) -> Scenario:
        if (self.expect is Expect.ALL) == bool(self.why):
            raise ValueError("`why` belongs to what does not expect all records, and only there")
        if (self.expect is Expect.PARTIAL) != bool(self.exceptions):
            raise ValueError("`exceptions` belong to what expects `partial`, and only there")
        if (self.trigger is Trigger.BOOT) and self.boot is None:
            raise ValueError("a trigger `boot` needs `boot`")
        if self.panics != (self.reset not in (ResetPath.ORDERLY, ResetPath.EMERGENCY)):
            raise ValueError("`panics` does not go with `reset`")
        return self

    @property
    def lkdtm(self) -> tuple[tuple[str, str], ...]:
        """(crash point, crash type) in their order."""
        if self.trigger is not Trigger.LKDTM:
            return ()
        pairs = (word.rpartition("/") for word in self.argument.split())
        return tuple((point or "DIRECT", kind) for point, _, kind in pairs)

    @property
    def kernel_needs(self) -> tuple[str, ...]:
        """Everything that the board's kernel and user space must have, in words."""
        needs = [f"sysctl {name}" for name in self.sysctl]
        needs += [f"parameter {name}" for name in self.parameters]
        for point, kind in self.lkdtm:
            needs += [f"LKDTM point {point}", f"LKDTM type {kind}"]
        if self.trigger in (Trigger.SYSRQ_SHELL, Trigger.SERIAL_BREAK):
            needs.append("sysctl kernel/sysrq")
        if self.cpu is not None:
            needs += [f"cpus {self.cpu + 1}", "command taskset"]
        return tuple(dict.fromkeys((*needs, *self.kernel)))

    @property
    def bench_needs(self) -> tuple[str, ...]:
        """Everything that the bench must offer, by the names of features, hooks and commands."""
        needs = list(self.requires)
        implied = {
            Trigger.SYSRQ_SHELL: ("sysrq",),
            Trigger.SERIAL_BREAK: ("sysrq", "break"),
            Trigger.LKDTM: ("lkdtm",),
        }
        needs += implied.get(self.trigger, ())
        needs += ["hook boot_with"] if self.boot else []
        needs += ["hook boot_with {ecc}"] if self.boot and self.boot.ecc_bytes is not None else []
        needs += ["hook reset"] if self.reset is ResetPath.BENCH else []
        needs += [f"command {name}" for name in self.commands]
        needs += ["sahara"] if self.table else []
        return tuple(dict.fromkeys(needs))
