"""The pytest plugin: panics on the board that ``--lg-env`` names, judged, for tests of your own.

    def test_my_driver_survives(panic_cycle):
        cycle = panic_cycle("sysrq-c", required=["my-driver"])
        assert cycle.result.verdict == "PASS", cycle.result.why

All cycles of a pytest session make one run: ``reports/<run-id>/``, its report named at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from farm.errors import BenchError
from farm.model import Cycle, Policy
from farm.scenarios import scenario_named

if TYPE_CHECKING:
    from farm.bench.environment import Bench
    from farm.run.session import Session

_REPORT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the farm's options; ``--lg-env`` itself comes from labgrid's plugin."""
    group = parser.getgroup("panic farm")
    group.addoption(
        "--farm-out",
        default="reports",
        metavar="DIR",
        help="where the run's folder is made (default: reports)",
    )


@pytest.fixture(scope="session")
def farm_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The run that all panics of this pytest session belong to."""
    # Not at the top: every pytest in this environment loads the plugin, few of them use it.
    from farm.report.files import write_reports
    from farm.run import session as runs
    from farm.run.progress import RunProgress

    lg_env = request.config.getoption("lg_env")
    if not lg_env:
        raise pytest.UsageError("this test panics a board: name it with --lg-env FILE")
    out = Path(request.config.getoption("farm_out"))
    with RunProgress(0, quiet=True) as progress:
        session = runs.Session(
            Path(lg_env),
            out,
            progress,
            policy=Policy(),
            command=("pytest", *map(str, request.config.invocation_params.args)),
            planned_cycles=0,
        )
        with session:
            yield session
    assert session.run is not None
    report, *_ = write_reports(session.folder.path, session.run)
    request.config.stash[_REPORT] = (
        f"{report} ({len(session.run.cycles)} cycles, wall time "
        f"{session.run.wall_to_board or 0:.2f} times the board's own)"
    )


@pytest.fixture(scope="session")
def farm_bench(farm_session: Session) -> Bench:
    """The bench itself: console, shell, power."""
    return farm_session.bench


@pytest.fixture(scope="session")
def panic_cycle(farm_session: Session) -> Callable[..., Cycle]:
    """A function that panics the board once and returns the judged ``farm.model.Cycle``.

    ``panic_cycle(scenario, *, required=(), budget_bytes={}, total_budget_bytes=None,
    before_panic=None, keep_records=False, repeat=1)``. A failing bench raises BenchError, after the
    board was power-cycled: it says nothing about the kernel.
    """

    def run(
        scenario: str,
        *,
        required: tuple[str, ...] | list[str] = (),
        budget_bytes: dict[str, int] | None = None,
        total_budget_bytes: int | None = None,
        before_panic: str | None = None,
        keep_records: bool = False,
        repeat: int = 1,
    ) -> Cycle:
        future, fault = farm_session.cycle(
            scenario_named(scenario),
            repeat,
            before_panic=before_panic,
            keep_records=keep_records,
            policy=Policy(
                required=tuple(required),
                budget_bytes=budget_bytes or {},
                total_budget_bytes=total_budget_bytes,
            ),
        )
        cycle = future.result()
        if farm_session.interrupted:
            raise KeyboardInterrupt
        if fault is not None:
            farm_session.recover(fault)
            raise BenchError(fault.message, part=fault.part, next_step=fault.next_step)
        return cycle

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the report, if there is one."""
    report = config.stash.get(_REPORT, None)
    if report:
        terminalreporter.write_line(f"Report: {report}")
