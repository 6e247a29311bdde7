"""Starting workers: each a process of its own, forked from one that has loaded everything once.

multiprocessing's forkserver is that process. The kernel kills it when its controller ends, however
that ends, and its workers with it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from typing import IO

__all__ = ["WorkerProcess", "end_with_parent", "prepare_workers", "start_worker"]

_NURSERY = "farm.nightly.nursery"
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that made it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _name(name: str) -> None:
    """Show ``name`` in `ps` and `top`, as much of it as the kernel keeps."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _work(
    module: str,
    name: str,
    streams: tuple[Connection, Connection, Connection],
    environment: dict[str, str],
) -> None:
    """Be a worker: standard input, output and error are ``streams``."""
    end_with_parent()
    controller = multiprocessing.parent_process()
    if controller is None or not controller.is_alive():
        sys.exit(1)  # it was gone before
    _name(name)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = os.fdopen(0, closefd=False, encoding="utf-8")
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(import_module(module).main())


class WorkerProcess:
    """A worker, with what the controller uses of `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._process = process
        self.stdin = stdin
        self.stdout = stdout

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; raises ProcessLookupError when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def prepare_workers() -> None:
    """Have the process that workers are forked from begin to load; the first of them waits for it.

    To be called from the main thread: its end is the process's.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([_NURSERY])
    ensure_running()


def start_worker(
    name: str,
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    module: str = "farm.nightly.worker",
) -> WorkerProcess:
    """Start ``main`` of ``module`` as a worker; ``name`` is for `ps`, ``log`` takes its errors."""
    prepare_workers()
    context = multiprocessing.get_context("forkserver")
    with ExitStack() as its_own:
        orders, orders_in = multiprocessing.Pipe(duplex=False)
        reports_out, reports = multiprocessing.Pipe(duplex=False)
        errors = Connection(os.dup(log.fileno()), readable=False)
        # These are its own once it has been forked.
        for one in (orders, reports, errors):
            its_own.enter_context(one)
        stdin = os.fdopen(_taken(orders_in), "wb")
        stdout = os.fdopen(_taken(reports_out), "rb", buffering=0)
        process = context.Process(
            target=_work,
            name=name,
            args=(
                module,
                name,
                (orders, reports, errors),
                dict(os.environ if environment is None else environment),
            ),
            daemon=True,
        )
        process.start()
    return WorkerProcess(process, stdin, stdout)


def _taken(connection: Connection) -> int:
    """Its file descriptor, to be used without it."""
    with connection:
        return os.dup(connection.fileno())
