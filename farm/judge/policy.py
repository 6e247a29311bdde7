"""What policy asks of a device: whether it must be there, and what its record may cost."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from farm.model import ManifestDevice, Policy

__all__ = ["budget_of", "is_required", "is_static", "unmatched"]


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
