"""Signals that end a program: handled otherwise for a while, or sent when its parent ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ENDING", "ending_with_parent", "handled", "termination_as_interrupt"]

_PR_SET_PDEATHSIG = 1

# Ctrl-C, a service manager, a terminal that is gone.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(
    numbers: Iterable[signal.Signals],
    handler: Callable[[int, FrameType | None], object] | signal.Handlers,
) -> Iterator[None]:
    """Have ``handler`` for these signals, and after it what there was; main thread only."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that a service manager gets a safe board too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


def ending_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a child process does first, to get ``number`` when this thread ends in any way.

    It is fit for ``preexec_fn``: what it needs is loaded before the fork.
    """
    # Only here: a program that starts no process must not wait for the import.
    import ctypes

    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def run() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return run
