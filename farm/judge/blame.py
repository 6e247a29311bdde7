"""Who has to act: the kernel's people, the bench's, whoever wrote the policy, or nobody."""

from __future__ import annotations

from collections.abc import Iterable

from farm.model import Blame, Finding, FindingKind, Verdict

__all__ = ["blame_of", "blamed"]

# What policy asks for beyond an intact record: the kernel did as it was told.
_POLICY = frozenset({FindingKind.OVER_BUDGET, FindingKind.NEVER_REGISTERED})


def blame_of(finding: Finding) -> Blame | None:
    """Return whose failure a finding is; None for one that is none."""
    match finding.verdict:
        case Verdict.PASS:
            return None
        case Verdict.SKIP:
            return Blame.UNSUPPORTED
        case Verdict.ERROR:
            return Blame.BENCH
        case _:
            return Blame.POLICY if finding.kind in _POLICY else Blame.KERNEL


def blamed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, each with whose failure it is."""
    return tuple(one.model_copy(update={"blame": blame_of(one)}) for one in findings)
