"""The policy of a sign-off: the rule in its own words, and the same as data."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from farm.errors import UsageError
from farm.model import Frozen
from farm.yaml_file import read_yaml

__all__ = [
    "ClauseName",
    "KernelIdentity",
    "Required",
    "SignoffPolicy",
    "Waiver",
    "policy_schema",
    "read_policy",
]

Name = Annotated[str, Field(min_length=1)]
Bytes = Annotated[int, Field(gt=0)]

# What a waiver may forgive. The kernel's identity, hardware, evidence and waivers it may not.
ClauseName = Literal[
    "coverage", "failures", "drivers", "budget", "growth", "failure-rate", "bench-errors"
]


class KernelIdentity(Frozen):
    """Which kernel; all that is given must fit, and it must come to one build."""

    build_id: Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")] | None = None
    release: Name | None = None

    @model_validator(mode="after")
    def _something(self) -> KernelIdentity:
        if self.build_id is None and self.release is None:
            raise ValueError("name the kernel by build_id, release or both")
        return self


class Required(Frozen):
    """Each scenario on each board, ``repeats`` times, read by each of ``channels``."""

    boards: tuple[Name, ...] = Field(min_length=1)
    scenarios: tuple[Name, ...] = Field(min_length=1)
    channels: tuple[Name, ...] = ()
    repeats: int = Field(default=1, ge=1)


class Growth(Frozen):
    """How much a device's largest record may grow against an earlier release."""

    baseline: KernelIdentity
    max_percent: float | None = Field(default=None, ge=0)
    max_bytes: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _something(self) -> Growth:
        if self.max_percent is None and self.max_bytes is None:
            raise ValueError("give max_percent, max_bytes or both; both must then hold")
        return self


class FailureRate(Frozen):
    """What the failure rate must be below, with which confidence."""

    max: float = Field(gt=0, lt=1)
    confidence: float = Field(default=0.95, ge=0.5, lt=1)


class BenchErrors(Frozen):
    """The share of cycles, retried ones included, that the bench may have failed in."""

    max_rate: float = Field(ge=0, le=1)


class Waiver(Frozen):
    """What is forgiven, exactly: every field must be equal to the problem's, none is a pattern."""

    clause: ClauseName
    board: Name | None = None
    scenario: Name | None = None
    channel: Name | None = None
    driver: Name | None = None
    owner: Name
    reason: Name
    expires: date = Field(description="the last day it holds, UTC")


class SignoffPolicy(Frozen):
    """The whole of a policy file."""

    name: Name
    rule: Name = Field(description="the rule in words, as the release manager would say it")
    kernel: KernelIdentity
    hardware: Literal["required", "optional"] = "required"
    allow_virtual: bool = Field(
        default=False, description="virtual boards count, but a GO then says so and is no GO"
    )
    required: tuple[Required, ...] = Field(min_length=1)
    drivers: tuple[Name, ...] = Field(
        default=(), description="must be registered and PASS in every required cell; patterns"
    )
    budget_bytes: dict[Name, Bytes] = Field(default={})
    total_budget_bytes: Bytes | None = None
    growth: Growth | None = None
    failure_rate: FailureRate | None = None
    bench_errors: BenchErrors | None = None
    waivers: tuple[Waiver, ...] = ()
    artifacts: dict[Name, Path] = Field(
        default={},
        description="files whose sha256 is recorded, relative to the policy: image, firmware ...",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> SignoffPolicy:
        if (
            self.allow_virtual
            and "hardware" in self.model_fields_set
            and (self.hardware == "required")
        ):
            raise ValueError("hardware: required and allow_virtual: true exclude each other")
        return self

    @field_validator("drivers")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a driver is named twice")
        return value


def read_policy(path: Path) -> SignoffPolicy:
    """Read a policy; UsageError names file, line and field of each fault, and artifacts not there.

    The artifacts' paths come back as they can be opened.
    """
    policy = read_yaml(path, SignoffPolicy, "`farm signoff schema` prints what a policy may hold.")
    found = {name: path.parent / file for name, file in policy.artifacts.items()}
    for name, file in found.items():
        if not file.is_file():
            raise UsageError(f"{path}: artifacts.{name}: {file} is no file")
    return policy.model_copy(update={"artifacts": found})


def policy_schema() -> dict[str, object]:
    """The JSON schema of a policy file, for editors."""
    return SignoffPolicy.model_json_schema()
