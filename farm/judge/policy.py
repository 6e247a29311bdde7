"""What policy asks of a device: whether it must be there, and what its record may cost."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from farm.model import CycleInput, Expect, FindingKind, ManifestDevice, Policy

__all__ = [
    "budget_of",
    "expected_of",
    "expected_of_contents",
    "is_required",
    "is_static",
    "unmatched",
    "unmatched_exceptions",
]


def _matches(pattern: str, device: ManifestDevice) -> bool:
    return fnmatchcase(device.driver, pattern) or fnmatchcase(device.name, pattern)


def is_required(policy: Policy, device: ManifestDevice) -> bool:
    """Whether a pattern of ``policy.required`` names the device or its driver."""
    return any(_matches(pattern, device) for pattern in policy.required)


def is_static(policy: Policy, device: ManifestDevice) -> bool:
    """Whether a pattern of ``policy.static`` names the device or its driver."""
    return any(_matches(pattern, device) for pattern in policy.static)


def unmatched(policy: Policy, devices: Iterable[ManifestDevice]) -> tuple[str, ...]:
    """List the required patterns that no registered device answers to, in the policy's order."""
    registered = tuple(devices)
    return tuple(
        pattern
        for pattern in dict.fromkeys(policy.required)
        if not any(_matches(pattern, device) for device in registered)
    )


def budget_of(policy: Policy, device: ManifestDevice) -> int | None:
    """Return the smallest budget, in bytes, of all patterns that fit; None if none does."""
    return min(
        (size for pattern, size in policy.budget_bytes.items() if _matches(pattern, device)),
        default=None,
    )


def expected_of(cycle: CycleInput, device: ManifestDevice) -> frozenset[FindingKind]:
    """What the scenario says must be wrong with a device; empty: nothing."""
    if cycle.expect is not Expect.PARTIAL:
        return frozenset()
    return frozenset(
        kind for one in cycle.exceptions if _matches(one.device, device) for kind in one.kinds
    )


def unmatched_exceptions(cycle: CycleInput, devices: Iterable[ManifestDevice]) -> tuple[str, ...]:
    """List the exceptions if not one is of a registered device: the scenario would prove nothing.

    A board may well be without some of them.
    """
    if cycle.expect is not Expect.PARTIAL or expected_of_contents(cycle):
        return ()
    if any(expected_of(cycle, device) for device in devices):
        return ()
    return tuple(one.device for one in cycle.exceptions)


def expected_of_contents(cycle: CycleInput) -> frozenset[FindingKind]:
    """What the scenario says must be wrong with the contents record."""
    if cycle.expect is not Expect.PARTIAL:
        return frozenset()
    return frozenset(
        kind for one in cycle.exceptions if one.device == "contents" for kind in one.kinds
    )
