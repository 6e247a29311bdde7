"""The pytest plugin: panics on the board that ``--lg-env`` names, judged, for tests of your own.

    def test_my_driver_survives(panic_cycle):
        cycle = panic_cycle("sysrq-c", required=["my-driver"])
        assert cycle.result.verdict == "PASS", cycle.result.why

All cycles of a pytest session make one run: ``reports/<run-id>/``, its report named at the end.

Several boards work side by side, each in a process of its own and with a run of its own:

    pytest --lg-env devices/virtual.yaml,devices/virtual-2.yaml
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from farm.errors import BenchError
from farm.model import Cycle, Policy
from farm.scenarios import scenario_named

if TYPE_CHECKING:
    from farm.bench.environment import Bench
    from farm.run.session import Session

_REPORTS = pytest.StashKey[list[str]]()
_WORKER_OUTPUT = "panic_farm_reports"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the farm's options; ``--lg-env`` itself comes from labgrid's plugin."""
    group = parser.getgroup("panic farm")
    group.addoption(
        "--farm-out",
        default="reports",
        metavar="DIR",
        help="where the run's folder is made (default: reports)",
    )
    group.addoption(
        "--farm-place",
        default=os.environ.get("LG_PLACE", ""),
        metavar="NAME",
        help="instead of --lg-env: the place of a coordinator (--lg-coordinator) that the board "
        "hangs at; acquired for the session",
    )
    group.addoption(
        "--farm-devices",
        default="devices",
        metavar="DIR",
        help="where the board of a place is described (default: devices)",
    )


def _boards(config: pytest.Config) -> list[str]:
    """The environments of --lg-env, which pytest-xdist hands on as it was given."""
    given = getattr(config.option, "farm_boards", None) or config.getoption("lg_env") or ""
    return given if isinstance(given, list) else [one for one in given.split(",") if one]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start a process for each board, if there are several."""
    boards = _boards(config)
    if len(boards) < 2 or hasattr(config, "workerinput"):
        return
    if not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError("several boards at once need pytest-xdist")
    if len(set(boards)) < len(boards):
        raise pytest.UsageError("--lg-env: one board cannot work beside itself")
    workers = config.option.numprocesses or len(boards)
    if workers != len(boards):
        raise pytest.UsageError(
            f"-n {workers}: there is one process for each of {len(boards)} boards"
        )
    config.option.farm_boards = boards
    # labgrid's own plug-in reads one file; here only what is the same for all boards matters.
    config.option.lg_env = boards[0]
    config.option.numprocesses = workers
    config.option.tx = ["popen"] * workers
    # One may be slow: whoever is idle takes over what another has not begun.
    config.option.dist = "worksteal"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give this process its board."""
    config.stash[_REPORTS] = []
    worker = getattr(config, "workerinput", None)
    boards = _boards(config)
    if worker is not None and boards:
        number = int(worker["workerid"].removeprefix("gw"))
        if number >= len(boards):
            raise pytest.UsageError(
                f"process {number + 1} has no board: --lg-env names {len(boards)}"
            )
        config.option.lg_env = boards[number]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take a process's report over."""
    said = getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT, [])
    node.config.stash[_REPORTS].extend(said)


@pytest.fixture(scope="session")
def farm_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The run that all panics of this pytest session belong to."""
    # Not at the top: every pytest in this environment loads the plugin, few of them use it.
    from farm.export import write_run_exports
    from farm.hosts.place import ENVIRONMENTS, acquired
    from farm.report.files import write_reports
    from farm.run import session as runs
    from farm.run.progress import RunProgress

    lg_env = request.config.getoption("lg_env")
    place = request.config.getoption("farm_place")
    coordinator = request.config.getoption("lg_coordinator") or ""
    if not lg_env and not place:
        raise pytest.UsageError(
            "this test panics a board: name it with --lg-env FILE or --farm-place NAME"
        )
    if coordinator:
        os.environ["LG_COORDINATOR"] = coordinator
    out = Path(request.config.getoption("farm_out"))
    with RunProgress(0, quiet=True) as progress, ExitStack() as held:
        if not lg_env:
            devices = Path(request.config.getoption("farm_devices"))
            lg_env = held.enter_context(acquired(place, devices, out / ENVIRONMENTS, coordinator))
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
    write_run_exports(session.folder.path, session.run)
    said = (
        f"{report} ({len(session.run.cycles)} cycles, wall time "
        f"{session.run.wall_to_board or 0:.2f} times the board's own)"
    )
    request.config.stash[_REPORTS].append(said)
    if hasattr(request.config, "workeroutput"):
        request.config.workeroutput[_WORKER_OUTPUT] = request.config.stash[_REPORTS]


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
    """Name the reports."""
    for report in config.stash[_REPORTS]:
        terminalreporter.write_line(f"Report: {report}")
