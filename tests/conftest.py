"""Which tests run: with --lg-env the validation suite on that board, without it everything else.

Tests marked ``virtual`` start virtual boards of their own; they run when asked for
(``-m virtual``), because they need QEMU and the images that ``farm build`` makes. Those marked
``debug_kernel`` or ``stock_kernel`` need the images of those variants; ``night`` builds a kernel,
``boards`` and ``hosts`` take minutes.
"""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Take Ctrl-C even where a shell started the tests in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_board = bool(config.getoption("lg_env") or config.getoption("farm_place"))
    asked = config.getoption("markexpr") or ""
    keep: list[pytest.Item] = []
    drop: list[pytest.Item] = []
    for item in items:
        needs_board = item.get_closest_marker("board") is not None
        held_back = [
            mark
            for mark in ("virtual", "debug_kernel", "stock_kernel", "night", "boards", "hosts")
            if item.get_closest_marker(mark) is not None and mark not in asked
        ]
        wanted = needs_board == on_board and not held_back
        (keep if wanted else drop).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep
