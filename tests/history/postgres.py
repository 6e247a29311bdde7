"""A PostgreSQL of the tests' own: Debian's package, a new cluster on the loopback interface."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START_DEADLINE_S = 60.0


def programs() -> Path:
    """The folder of the newest server that Debian's packages brought."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    # Not a skip: `make test` installs it.
    assert found, "there is no PostgreSQL: `make test` installs the package postgresql"
    return found[-1].parent


def _other_user() -> pwd.struct_passwd | None:
    """initdb refuses root, and needs a user that exists."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is neither a user postgres nor nobody")


@contextmanager
def cluster() -> Iterator[str]:
    """Start a server; gives its URL up to the database's name, and leaves nothing behind."""
    folder = programs()
    user = _other_user()
    # Not below pytest's folder, which belongs to the user of the tests.
    root = Path(tempfile.mkdtemp(prefix="farm-pg-"))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    if user is not None:
        os.chown(root, user.pw_uid, user.pw_gid)
    identity: dict[str, Any] = {}
    if user is not None:
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = root / "data"
    server = None
    try:
        create = f"-D {data} -U farm -A trust -E UTF8 --locale=C.UTF-8 --no-sync"
        subprocess.run(
            [str(folder / "initdb"), *create.split()],
            check=True,
            cwd=root,
            stdout=subprocess.DEVNULL,
            **identity,
        )
        serve = f"-D {data} -p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off"
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(
                [str(folder / "postgres"), *serve.split()],
                cwd=root,
                stdout=log,
                stderr=log,
                **identity,
            )
        deadline = time.monotonic() + _START_DEADLINE_S
        ready = [str(folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert server.poll() is None, (root / "log").read_text()
            assert time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://farm@127.0.0.1:{port}"
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(root, ignore_errors=True)
