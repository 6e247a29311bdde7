"""The board's TCP ports, on the loopback interface only."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path

from farm.errors import UsageError
from farm.virtual.options import BoardOptions

_LOOPBACK = "127.0.0.1"
_LISTENING = "0A"


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LOOPBACK, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def bind_ports(options: BoardOptions) -> tuple[socket.socket, socket.socket]:
    """Listening (serial, power) sockets; raises UsageError naming the port and who holds it."""
    taken = 0
    for pair in options.port_candidates():
        bound: list[socket.socket] = []
        for port in pair:
            try:
                bound.append(_bind(port))
            except OSError as error:
                for listener in bound:
                    listener.close()
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                taken = taken or port
                break
        else:
            return bound[0], bound[1]
    owner = port_owner(taken)
    raise UsageError(
        f"TCP port {taken} is taken" + (f" by {owner}" if owner else ""),
        "Choose others with --serial-port and --power-port; `farm virtual list` shows the boards.",
    )


def bind_fastboot(options: BoardOptions) -> socket.socket:
    """The bootloader's listening socket, on any port if none is named; raises UsageError."""
    port = options.fastboot_port or 0
    try:
        return _bind(port)
    except OSError as error:
        owner = port_owner(port)
        raise UsageError(
            f"TCP port {port} cannot be had: {error.strerror}" + (f", {owner}" if owner else ""),
            "Choose another with --fastboot-port.",
        ) from error


def port_owner(port: int) -> str:
    """Who listens on a local TCP port, as "name (pid N)"; empty if that cannot be seen."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if not inodes.isdisjoint(links):
            name = re.sub(r"\s+", " ", command.decode(errors="replace")).strip()[:80]
            return f"{name} (pid {process.name})"
    return ""
