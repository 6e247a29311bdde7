"""Connections to other hosts, against an sshd of the tests' own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from labgrid.util.ssh import sshmanager

from farm.bench.hosts import command_on, leave_hosts
from tests.bench.ssh_host import ssh_host
from tests.figures.processes import command_lines_with, descendants, name_of
from tests.waiting import wait_until

# labgrid's own way takes a minute with a host that is gone.
END_DEADLINE_S = 10.0


def _work(host: str, said: Connection, go_on: Connection) -> None:
    """Use a host, then leave the way multiprocessing's processes do."""
    told = subprocess.run(command_on(host, ["echo", "there"]), capture_output=True, check=True)
    said.send((told.stdout, sshmanager.get(host)._tmpdir))
    go_on.recv()
    leave_hosts()


@pytest.mark.virtual
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_a_process_that_leaves_keeps_no_connection(tmp_path: Path, gone: bool) -> None:
    with ssh_host(tmp_path, tmp_path) as host:
        said, say = multiprocessing.Pipe(duplex=False)
        go_on, may_go_on = multiprocessing.Pipe(duplex=False)
        arguments = (host.name, say, go_on)
        # A daemon: one that waits when its test has failed must not keep pytest from its end.
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=arguments, daemon=True
        )
        process.start()
        told, folder = said.recv()
        assert told == b"there\n"
        assert Path(folder).is_dir()
        assert command_lines_with(folder)
        sshds = [
            pid for pid in descendants(os.getpid()) if gone and name_of(pid).startswith("sshd")
        ]
        try:
            for pid in sshds:
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            may_go_on.send("leave")
            process.join(3 * END_DEADLINE_S)
            assert time.monotonic() - began < END_DEADLINE_S
        finally:
            for pid in sshds:
                os.kill(pid, signal.SIGCONT)
        assert process.exitcode == 0
        assert not Path(folder).exists()
        wait_until(lambda: not command_lines_with(folder), "its ssh ends", END_DEADLINE_S)
