"""Opening a bench from a labgrid environment file, or from a target that labgrid already has."""

from __future__ import annotations

import atexit
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labgrid import Environment
from labgrid.binding import BindingError, BindingState
from labgrid.exceptions import (
    InvalidConfigError,
    NoConfigFoundError,
    NoDriverFoundError,
    NoResourceFoundError,
    NoSupplierFoundError,
    RegistrationError,
)
from labgrid.remote.client import Error

from farm.bench import hooks
from farm.bench.console import RecordedConsole
from farm.bench.coordinator import remote_places
from farm.bench.environment_file import check_target, places_of
from farm.bench.hosts import lost_host
from farm.bench.options import BenchOptions, parse_options
from farm.bench.power import Power
from farm.bench.shell import BoardShell
from farm.bench.strategy import PanicFarmStrategy, Status
from farm.errors import BenchError, FarmError, UsageError
from farm.scenarios import Boot

ROLE = "main"
# Of a fault: the host that a board hangs on is gone, whatever has failed for it.
HOST_PART = "host"

_CONFIG_ERRORS = (
    BindingError,
    InvalidConfigError,
    NoConfigFoundError,
    NoDriverFoundError,
    NoResourceFoundError,
    NoSupplierFoundError,
    RegistrationError,
    KeyError,
    TypeError,
    ValueError,
    ImportError,
)


@dataclass
class Bench:
    """A board with all that reaches it."""

    target: Any
    options: BenchOptions
    console: RecordedConsole
    shell: BoardShell
    strategy: PanicFarmStrategy
    started_here: bool = False

    def blamed(self, error: BenchError) -> BenchError:
        """``error``, or, when a host that the board hangs on is gone, that; takes up to 10 s."""
        host = lost_host(self.target)
        if not host:
            return error
        return BenchError(
            f"the host {host}, where the board {self.options.board} hangs, does not answer: "
            f"{error.message}",
            part=HOST_PART,
            next_step=f"Is {host} up, and its sshd? `ssh {host} true` says so.",
        )

    @property
    def power(self) -> Power:
        """The board's power switch."""
        return self.strategy.switch

    def ensure_shell(self) -> None:
        """Have the board at a shell that answers, power-cycled if need be; raises BenchError."""
        self.strategy.transition(Status.shell)

    def power_cycle(self) -> None:
        """Switch the board off, on, and wait for the shell; raises BenchError."""
        self.strategy.transition(Status.off)
        self.strategy.transition(Status.shell)

    def boot_with(self, boot: Boot | None) -> None:
        """Have the next boots differ as ``boot`` says, or no longer; raises BenchError."""
        words = self.options.boot_with
        if not words:
            return
        values = {"cmdline": "", "ecc": "-1", "boots": "0"}
        if boot is not None:
            ecc = -1 if boot.ecc_bytes is None else boot.ecc_bytes
            values = {"cmdline": boot.cmdline, "ecc": str(ecc), "boots": str(boot.boots)}
        hooks.run_command(hooks.filled(words, values))

    def warm_reset(self) -> None:
        """Pull the board's reset line, which keeps its memory; raises BenchError."""
        hooks.run_command(self.options.reset)

    def safe_state(self) -> FarmError | None:
        """Switch the board off; an error is returned, not raised."""
        return self.strategy.safe_state()

    def close(self) -> None:
        """Let go of the board, and stop what ``open_bench`` started; takes at most 2 s or so."""
        try:
            usb = self.strategy.usb
            if usb is not None and usb.state is BindingState.active:
                self.target.deactivate(usb)
            if self.console.state is BindingState.active:
                self.target.deactivate(self.console)
        finally:
            if self.started_here:
                self.started_here = False
                hooks.take_down(self.options.bench.stop)


def bench_from_target(target: Any) -> Bench:
    """The bench of a labgrid target, whose environment has been loaded; raises UsageError."""
    config = target.env.config
    data = config.get_targets()[target.name]
    options = parse_options(data.get("options"), data.get("features"), config.filename)
    try:
        console = target.get_driver(RecordedConsole, activate=False)
        shell = target.get_driver(BoardShell, activate=False)
        strategy = target.get_driver(PanicFarmStrategy, activate=False)
    except NoDriverFoundError as error:
        raise UsageError(
            f"{config.filename}: target {target.name}: {error}",
            "A board needs the drivers RecordedConsole, BoardShell, a power driver and "
            "PanicFarmStrategy; see devices/virtual.yaml.",
        ) from error
    strategy.use(options)
    return Bench(target, options, console, shell, strategy)


def _load(lg_env: Path) -> tuple[Any, BenchOptions]:
    places = places_of(lg_env)
    try:
        environment = Environment(str(lg_env))
        data = environment.config.get_targets().get(ROLE)
    except _CONFIG_ERRORS as error:
        raise UsageError(f"{lg_env}: {error}", "See devices/virtual.yaml.") from error
    except (OSError, AttributeError) as error:
        raise UsageError(f"{lg_env} is not a labgrid environment: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{lg_env}: there is no target `{ROLE}`", "See devices/virtual.yaml.")
    if "features" in (data.get("options") or ()):
        raise UsageError(
            places.error(["targets", ROLE, "options", "features"], "it belongs beside `options`")
        )
    check_target(data, ROLE, places)
    return environment, parse_options(data.get("options"), data.get("features"), lg_env)


def _make_target(environment: Any, lg_env: Path) -> Any:
    """labgrid's target; an argument that a driver does not know is an error here."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            target = environment.get_target(ROLE)
    except Error as error:
        raise BenchError(
            f"{lg_env}: the coordinator says: {' '.join(map(str, error.args))}",
            part="bench",
            next_step="A RemotePlace must be acquired: `labgrid-client -p PLACE acquire`, or "
            "`farm run --place PLACE`, which does it by itself.",
        ) from error
    for one in said:
        if "unsupported attribute" in str(one.message):
            raise UsageError(f"{lg_env}: {one.message}")
    return target


def read_options(lg_env: Path) -> BenchOptions:
    """The options of an environment file, checked; opens nothing; raises UsageError."""
    return _load(lg_env)[1]


def read_target(lg_env: Path) -> dict[str, Any]:
    """The target of an environment file as labgrid reads it, checked; raises UsageError."""
    environment, _ = _load(lg_env)
    return dict(environment.config.get_targets()[ROLE])


def _forget(target: Any) -> None:
    """Clean a target up now: labgrid keeps each one, with all its drivers, until the process ends.

    A worker opens a bench for every run of a night.
    """
    clean_up = target._atexit_cleanup
    atexit.unregister(clean_up)
    clean_up()


@contextmanager
def open_bench(lg_env: Path, *, start: bool = True) -> Iterator[Bench]:
    """Open the bench of target ``main`` in ``lg_env``, started if it has to be; closes it after.

    Without ``start``, a bench that is down is a BenchError(part="bench").

    Raises UsageError naming the file and what is wrong in it, BenchError when the bench is lost or
    does not start. The console is opened, hence recorded, before the power comes on.
    """
    environment, options = _load(lg_env)
    hook = options.bench
    if not start and not hooks.is_up(options.board, hook.status):
        raise BenchError(
            f"the bench of board {options.board} is down",
            part="bench",
            next_step=f"Start it with `{' '.join(hook.start)}`." if hook.start else "",
        )
    started = hooks.bring_up(options.board, hook.status, hook.start, hook.stop)
    bench = None
    try:
        with remote_places(environment, environment.config.get_targets()[ROLE]):
            try:
                bench = bench_from_target(_make_target(environment, lg_env))
            except _CONFIG_ERRORS as error:
                raise UsageError(f"{lg_env}: {error}", "See devices/virtual.yaml.") from error
            bench.started_here = started
            bench.target.activate(bench.console)
            yield bench
    finally:
        if bench is not None:
            try:
                bench.close()
            finally:
                _forget(bench.target)
        elif started:
            hooks.take_down(options.bench.stop)
