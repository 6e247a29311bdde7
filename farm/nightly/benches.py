"""Having a board's bench up for the whole night, and down again after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from farm.bench import hooks
from farm.bench.environment import read_options
from farm.errors import BenchError

__all__ = ["ensure_up", "take_down"]


def ensure_up(lg_env: Path, before_start: Callable[[], None] = lambda: None) -> None:
    """Have the bench up, a lost one afresh; ``before_start`` is called when it is not up yet.

    Raises BenchError when it does not start.
    """
    options = read_options(lg_env)
    hook = options.bench
    try:
        if hooks.is_up(options.board, hook.status):
            return
    except BenchError:
        if not (hook.stop and hook.start):
            raise
        hooks.run_command(hook.stop)
    before_start()
    hooks.bring_up(options.board, hook.status, hook.start, hook.stop)


def take_down(lg_env: Path) -> None:
    """Stop a bench that the night started."""
    hooks.take_down(read_options(lg_env).bench.stop)
