"""Having a board's bench up for the whole night, and down again after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from farm.bench import hooks
from farm.bench.environment import Bench, read_options
from farm.errors import BenchError

__all__ = ["ensure_up", "let_go", "take_down"]


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


def let_go(bench: Bench) -> None:
    """Undo what a worker wanted that was killed in a cycle, and switch the board off.

    Keys are let go, the next boots are the board's own. Raises BenchError.
    """
    for key in bench.strategy.keys.values():
        hooks.run_command(bench.strategy.key_command(key, "release"))
    bench.boot_with(None)
    error = bench.safe_state()
    if error is not None:
        raise error


def take_down(lg_env: Path) -> None:
    """Stop a bench that the night started."""
    hooks.take_down(read_options(lg_env).bench.stop)
