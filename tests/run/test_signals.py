from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from farm.run.session import signals_held
from farm.signals import termination_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_the_board_is_safe(number: signal.Signals) -> None:
    """With other threads there, as the console's and the judge's are: they take signals too."""
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    done: list[str] = []

    def leave() -> None:
        with signals_held():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            done.append("safe")

    try:
        with termination_as_interrupt(), pytest.raises(KeyboardInterrupt):
            leave()
    finally:
        stop.set()
        other.join()
    assert done == ["safe"]


def test_without_an_interrupt_nothing_follows() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals_held():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
