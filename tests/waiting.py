"""Waiting for what another process or thread does, with an end to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 60.0
_EVERY_S = 0.02


def wait_until(true: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait for something to become true, and return what was; AssertionError if it does not."""
    end = time.monotonic() + deadline_s
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {deadline_s:g} s"
        time.sleep(_EVERY_S)
    return found
