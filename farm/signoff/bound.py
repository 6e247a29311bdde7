"""What a number of repeats really supports: the exact bound on a failure rate.

Clopper and Pearson (Biometrika 26, 1934), one-sided: the largest rate at which as few failures as
were seen still have a probability of 1 - confidence. Holds for independent cycles of one kind.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p

__all__ = ["cycles_needed", "upper_bound"]

_STEPS = 60


def _at_most(failures: int, cycles: int, rate: float) -> float:
    """The probability of at most ``failures`` in ``cycles``."""
    total = 0.0
    for k in range(failures + 1):
        ways = lgamma(cycles + 1) - lgamma(k + 1) - lgamma(cycles - k + 1)
        total += exp(ways + k * log(rate) + (cycles - k) * log1p(-rate))
    return total


def upper_bound(failures: int, cycles: int, confidence: float) -> float:
    """The failure rate that ``failures`` in ``cycles`` exclude with ``confidence``; 1 for none."""
    if not 0 <= failures <= cycles:
        raise ValueError(f"{failures} failures in {cycles} cycles")
    if failures == cycles:
        return 1.0
    if failures == 0:
        return float(1 - (1 - confidence) ** (1 / cycles))
    low, high = failures / cycles, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(failures, cycles, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def cycles_needed(rate: float, confidence: float) -> int:
    """How many cycles without a failure bound the rate at ``rate``."""
    cycles = max(1, round(log(1 - confidence) / log1p(-rate)) - 1)
    while upper_bound(0, cycles, confidence) > rate:
        cycles += 1
    return cycles
