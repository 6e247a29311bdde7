"""A coordinator's place for a run: acquired if it is free, and then released after it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labgrid.remote.client import Error

from farm.bench.coordinator import CheckedSession, address_of, connect
from farm.errors import BenchError, FarmError, UsageError
from farm.hosts.environment import device_file, exported, write_environment

__all__ = ["ENVIRONMENTS", "acquired"]

# Below the folder of runs: what tells of a board may be needed after its run.
ENVIRONMENTS = "places"


def _is_ours(session: Any, place: Any) -> bool:
    """Whether the place is acquired under our name."""
    return bool(place.acquired == f"{session.gethostname()}/{session.getuser()}")


def _place(session: CheckedSession, name: str) -> Any:
    if name not in session.places:
        known = ", ".join(sorted(session.places)) or "none"
        raise UsageError(f"the coordinator has no place {name!r}", f"Its places are: {known}.")
    return session.places[name]


def _ask(session: CheckedSession, name: str, what: str) -> None:
    """Have labgrid's client acquire or release a place; raises BenchError with its words."""
    us = f"{session.gethostname()}/{session.getuser()}"
    session.args = argparse.Namespace(place=name, allow_unmatched=False, acquired=us)
    # It prints what it does.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            session.loop.run_until_complete(getattr(session, what)())
        except Error as error:
            raise BenchError(
                f"the place {name} cannot be {what.removesuffix('_from')}d: {error.args[0]}",
                part="bench",
                next_step=f"`labgrid-client -p {name} show` tells who has it, and what it is.",
            ) from error


@contextmanager
def acquired(name: str, devices: Path, folder: Path, coordinator: str = "") -> Iterator[Path]:
    """Hold the place ``name``; yields its environment, written below ``folder``.

    One that we hold already is left acquired after. Raises UsageError for a place that is not
    there, BenchError when somebody else has it or the coordinator does not answer.
    """
    address = address_of(coordinator)
    session = connect(address)
    took = False
    try:
        place = _place(session, name)
        # Before somebody is kept from it for nothing.
        device_file(name, place.tags, devices)
        session.check(place)
        if not _is_ours(session, place):
            _ask(session, name, "acquire")
            took = True
        resources = exported(session, place)
        session.check(place)
        path = write_environment(name, place.tags, resources, devices, folder, address)
    except BaseException:
        if took:
            with contextlib.suppress(FarmError):
                _ask(session, name, "release_from")
        raise
    finally:
        session.disconnect()
    try:
        yield path
    finally:
        if took:
            _release(address, name)


def _release(address: str, name: str) -> None:
    """Release by a session of its own: the first may be hours old; what fails is told."""
    try:
        session = connect(address)
        try:
            _ask(session, name, "release_from")
        finally:
            session.disconnect()
    except FarmError as error:
        print(f"farm: {error.message}", file=sys.stderr)
