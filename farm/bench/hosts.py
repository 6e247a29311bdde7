"""Other hosts, as ssh knows them: what may be one's name, commands there, and whether it answers.

A name that comes from a coordinator is hostile: ssh and rsync would take one that begins with `-`
for an option, and run what it says.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from labgrid.driver.exception import ExecutionError
from labgrid.util.proxy import proxymanager
from labgrid.util.ssh import sshmanager

from farm.errors import BenchError

__all__ = [
    "LAUNCHER",
    "command_on",
    "forward",
    "hosts_of",
    "is_host",
    "leave_hosts",
    "link",
    "lost_host",
]

# Where `farm exporter` leaves the farm that runs there, below the home of its user.
LAUNCHER = ".panic-farm/farm"
_HOST = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,31}@)?[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ANSWER_DEADLINE_S = 10
_SSH = ("ssh", "-x", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR")


def is_host(name: object) -> bool:
    """Whether ``name`` can be a host's, or USER@HOST, and nothing else."""
    return isinstance(name, str) and _HOST.fullmatch(name) is not None


def checked(name: str) -> str:
    """``name``; raises BenchError for what no host is called."""
    if not is_host(name):
        raise BenchError(
            f"{name!r} is no name for a host",
            part="bench",
            next_step="HOST or USER@HOST: letters, digits, '.', '_' and '-'.",
        )
    return name


def _connection(host: str) -> Any:
    """labgrid's connection to a host, a new one for one that was lost; raises BenchError."""
    checked(host)
    with contextlib.suppress(KeyError):
        # labgrid goes on with the forwards of a connection that has died.
        known = sshmanager._connections[host]
        if not known.isconnected():
            _drop(host)
    try:
        return sshmanager.get(host)
    except (ExecutionError, OSError, subprocess.SubprocessError) as error:
        raise BenchError(
            f"the host {host} cannot be reached: {_why(error)}",
            part="bench",
            next_step=f"`ssh {host} true` must work without a password, and know the host's key.",
        ) from error


def _why(error: Exception) -> str:
    """The last words of an error of labgrid's, which quotes whole commands."""
    words = str(error.args[0] if error.args else error)
    said = re.findall(r"b'((?:[^'\\]|\\.)*)'", words)
    return next((one.replace("\\r\\n", "") for one in reversed(said) if one), words)[:300]


def command_on(host: str, words: Sequence[str]) -> list[str]:
    """The command line that runs ``words`` on ``host``; `farm` is the one of its exporter."""
    there = shlex.join(words)
    if words[0] == "farm":
        there = f'exec "$HOME"/{LAUNCHER} {shlex.join(words[1:])}'
    return [*_connection(host).get_prefix(), "--", there]


def link(resource: Any) -> Any:
    """The connection that a resource is reached through, made anew if it was lost; None for none.

    Raises BenchError. What was forwarded over another one is gone.
    """
    host = proxy_of(resource)
    return _connection(host) if host else None


def proxy_of(resource: Any) -> str:
    """The host that a resource of labgrid's is reached through; empty for none."""
    extra = getattr(resource, "extra", None) or {}
    if extra.get("proxy_required"):
        return checked(str(extra.get("proxy")))
    return str(proxymanager._force_proxy or "")


def forward(resource: Any) -> tuple[str, int]:
    """Host and port to connect to for a network resource, through ssh if it has to be.

    Raises BenchError naming the host that cannot be reached.
    """
    host = proxy_of(resource)
    link(resource)
    try:
        address, port = proxymanager.get_host_and_port(resource)
    except (ExecutionError, OSError, subprocess.SubprocessError) as error:
        raise BenchError(
            f"the host {host} forwards no port {getattr(resource, 'port', '')}: {_why(error)}",
            part="bench",
            next_step="Does its sshd allow TCP forwarding to its own loopback?",
        ) from error
    return address, int(port)


def answers(host: str, deadline_s: int = _ANSWER_DEADLINE_S) -> bool:
    """Whether a host lets us in, by a connection of its own, within ``deadline_s`` seconds."""
    try:
        done = subprocess.run(
            [*_SSH, "-o", f"ConnectTimeout={deadline_s}", checked(host), "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=deadline_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def hosts_of(target: Any) -> list[str]:
    """The hosts that a target's resources hang on, each once, in order."""
    found: dict[str, None] = {}
    for one in target.resources:
        for host in (proxy_of(one), str(getattr(one, "host", "") or "")):
            if host and is_host(host) and host not in ("localhost", "127.0.0.1"):
                found[host] = None
                break
    return list(found)


def lost_host(target: Any) -> str:
    """The first of a target's hosts that does not answer any more; empty when all do.

    The connection to it is dropped: one that the network swallows would live on for a quarter of an
    hour, and with it what was forwarded.
    """
    for host in hosts_of(target):
        if not answers(host):
            _drop(host)
            return host
    return ""


def leave_hosts() -> None:
    """End every connection to a host, and what is kept here for it; never raises.

    For a process that multiprocessing made: it runs no exit functions, to which labgrid leaves
    this. Nor is a host waited for that is gone, which would take those a minute.
    """
    for host in list(sshmanager._connections):
        _drop(host)


def _drop(host: str) -> None:
    known = sshmanager._connections.get(host)
    if known is None:
        return
    if known._socket is not None:
        # It is ssh's own process here that answers. One that the user had before goes on.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            known._run_socket_command("exit")
    if known._keepalive is not None:
        known._keepalive.kill()
        known._keepalive.communicate()
    atexit.unregister(known.cleanup)
    shutil.rmtree(known._tmpdir, ignore_errors=True)
    sshmanager.remove_by_name(host)
