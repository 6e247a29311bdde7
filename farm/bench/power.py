"""Power by way of labgrid's PowerProtocol; a power switch that fails is the bench's fault."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from farm.errors import BenchError, DeadlineError

_DEADLINE_S = 15.0
_NEXT_STEP = "Check the power switch, its server and its address in the environment file."


class Power:
    """Switches a board; ``driver`` implements labgrid's PowerProtocol."""

    def __init__(self, driver: Any, deadline_s: float = _DEADLINE_S) -> None:
        self._driver = driver
        self._deadline_s = deadline_s

    def on(self) -> None:
        """Switch on; raises BenchError(part="power")."""
        self._call(self._driver.on, "switching the power on")

    def off(self) -> None:
        """Switch off; raises BenchError(part="power")."""
        self._call(self._driver.off, "switching the power off")

    def is_on(self) -> bool | None:
        """What the switch reports, None if it cannot tell; raises BenchError(part="power")."""
        if not hasattr(self._driver, "get"):
            return None
        answer = self._call(self._driver.get, "asking the power switch")
        return None if answer is None else bool(answer)

    def _call(self, action: Callable[[], Any], what: str) -> Any:
        """Call in a thread: labgrid's backends have no deadline of their own."""
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((action(), None))
            except Exception as error:  # each backend has errors of its own
                answers.put((None, error))

        threading.Thread(target=run, name="power", daemon=True).start()
        try:
            value, error = answers.get(timeout=self._deadline_s)
        except queue.Empty:
            raise DeadlineError(
                what, part="power", deadline_s=self._deadline_s, next_step=_NEXT_STEP
            ) from None
        if error is not None:
            raise BenchError(
                f"{what} failed: {error}", part="power", next_step=_NEXT_STEP
            ) from error
        return value
