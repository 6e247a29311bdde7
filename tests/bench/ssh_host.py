"""Another host as far as a test needs one: an sshd of its own, which sees no file of this host's.

It listens on loopback, in a mount namespace where the project and the test's folder are empty. Its
python3 has pyusb and neither the farm nor labgrid, and sees the virtual boards' bus.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import usb

ROOT = Path(__file__).resolve().parents[2]
NAME = "cablehost"
# Debian's, unpacked and not installed; `make test` does that.
SSHD = ROOT / ".venv" / "openssh" / "usr" / "sbin" / "sshd"
PASSWD = Path("/etc/passwd")
_START_DEADLINE_S = 10.0


@dataclass(frozen=True)
class SshHost:
    """The other host; ``name`` is what ssh takes."""

    name: str
    folder: Path

    def run(self, command: str) -> str:
        """What a command says there."""
        done = subprocess.run(
            ["ssh", self.name, command], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def ssh_host(hidden: Path, umockdev: Path) -> Iterator[SshHost]:
    """Start the host, which does not see ``hidden`` and sees the USB bus of ``umockdev``.

    While it is there, ssh and labgrid know it by its name.
    """
    folder = Path(tempfile.mkdtemp(prefix="farm-ssh-"))
    port = _free_port()
    for name in ("bin", "client", "python", "home"):
        (folder / name).mkdir()
    shutil.copytree(Path(usb.__file__).parent, folder / "python" / "usb")
    base = os.path.realpath(sys.executable)
    write_script(
        folder / "bin" / "python3",
        f"export LD_PRELOAD=libumockdev-preload.so.0 UMOCKDEV_DIR={umockdev}\n"
        f'export PYTHONPATH={folder / "python"}\nexec {base} -s -P "$@"',
    )
    key, host_key = make_key(folder / "key"), make_key(folder / "host_key")
    (folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    # Whatever the user's own shell makes of PATH, it is this one's that counts.
    path = f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    write_script(folder / "command", f'export PATH={path}\nexec sh -c "$SSH_ORIGINAL_COMMAND"')
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nAuthorizedKeysFile {folder / 'authorized_keys'}\n"
        f"PermitRootLogin yes\nForceCommand {folder / 'command'}\n"
    )
    (folder / "ssh_config").write_text(
        f"Host {NAME}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {key}\n"
        f"  StrictHostKeyChecking no\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
        "  LogLevel ERROR\n"
    )
    write_script(
        folder / "client" / "ssh", f'exec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"'
    )
    mounts = [f"mount -t tmpfs none {one}" for one in (ROOT, hidden, "/var/cache")]
    # The namespace hides where it comes from.
    own_sshd = shutil.copy2(SSHD, folder / "sshd")
    start = f"{own_sshd} -D -e -f {folder / 'sshd_config'}"
    if os.getuid() == 0:
        alone = ["unshare", "--mount"]
        users = PASSWD.read_text()
        if "\nsshd:" not in users:
            (folder / "passwd").write_text(
                f"{users.rstrip()}\nsshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n"
            )
            mounts.append(f"mount --bind {folder / 'passwd'} {PASSWD}")
        mounts.append("mkdir -p /run/sshd")
    else:
        # Root for the mounts only: an sshd that is nobody's but its user's changes no user.
        alone = ["unshare", "--map-root-user", "--mount"]
        start = f"unshare --user --map-user={os.getuid()} --map-group={os.getgid()} {start}"
    inside = " && ".join([*mounts, f"exec {start}"])
    with pytest.MonkeyPatch.context() as patch, (folder / "sshd.log").open("wb") as log:
        patch.setenv("PATH", f"{folder / 'client'}:{os.environ['PATH']}")
        patch.setenv("LG_AGENT_PREFIX", str(folder / "home"))
        sshd = subprocess.Popen([*alone, "sh", "-c", inside], stdout=log, stderr=log)
        try:
            host = SshHost(NAME, folder)
            end = time.monotonic() + _START_DEADLINE_S
            while True:
                try:
                    host.run("true")
                    break
                except subprocess.SubprocessError:
                    words = (folder / "sshd.log").read_text()
                    assert time.monotonic() < end, words
                    assert sshd.poll() is None, words
                    time.sleep(0.1)
            yield host
        finally:
            sshd.terminate()
            sshd.wait()
    shutil.rmtree(folder)
