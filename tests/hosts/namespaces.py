"""Hosts as far as a test needs several: network namespaces on a bridge, each with its own sshd.

A farm is one namespace, the controller's, with a bridge in it; every host has processes, network,
hostname, mounts and a home of its own, and its sshd is all that listens on the network. Kernels and
the virtual environment are shared with the machine. With or without root: then a user namespace is
around it all.

    with Farm() as farm:
        farm.add_coordinator()
        host = farm.add_host("h1", boards=["a", "b"])
        farm.run("labgrid-client", "places")
        host.kill()
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path
from typing import Self

import usb

from tests.bench.ssh_host import PASSWD, ROOT, SSHD, make_key, write_script
from tests.waiting import wait_until

COORDINATOR = "coordinator"
ADDRESS = "127.0.0.1:20408"
BIN = Path(sys.executable).parent
_NET = "10.77.0"
_CONTROLLER = 1
_DEADLINE_S = 60.0
# The farm's own words reach the user in time; ssh must not wait for a dead host for ever.
_SSH_OPTIONS = (
    "  LogLevel ERROR\n  ConnectTimeout 10\n  ServerAliveInterval 5\n  ServerAliveCountMax 2\n"
)


def _init_of(process: subprocess.Popen[bytes]) -> int:
    """The first process of the innermost namespace that ``process`` has made."""
    pid = process.pid
    end = time.monotonic() + 10
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name == "sh":
            return pid
        if children:
            pid = int(children[0])
        assert process.poll() is None, "the namespace was not made"
        time.sleep(0.01)
    raise AssertionError("no first process in the namespace")


def ask_to_end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send a signal to the program that was started in a namespace, not to the way in."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), number)


def _within(folder: Path) -> list[str]:
    """What makes a program run in a folder of the mount namespace that it is in.

    `nsenter --wd` opens it outside: to the kernel it is then on another mount than the same folder
    by its name, and nothing can be renamed between the two.
    """
    return ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]


@dataclass
class Host:
    """A machine; ``name`` is its hostname, and what ssh takes."""

    farm: Farm
    name: str
    number: int
    folder: Path
    boards: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)
    pid: int = field(init=False)
    exporter: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{_NET}.{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of what runs there."""
        return {
            **self.farm.environment,
            "HOME": str(self.folder),
            "PANIC_FARM_STATE": str(self.folder / "state"),
        }

    def start(self, *words: str, log: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a program there; what it says goes to the file ``log`` of the host's folder."""
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                self._entered(*words),
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _entered(self, *words: str, as_root: bool = False) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self.farm.rootless else []
        # Who comes by ssh and who exports must be one user, as on a machine.
        plain = [] if as_root else self.farm.as_user
        return [
            *("nsenter", "--target", str(self.pid), *user),
            *("--net", "--mount", "--uts", "--pid", "--", *_within(self.folder), *plain, *words),
        ]

    def run(self, *words: str, deadline_s: float = _DEADLINE_S, as_root: bool = False) -> str:
        """What a program says there; AssertionError when it fails."""
        done = subprocess.run(
            self._entered(*words, as_root=as_root),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def kill(self) -> None:
        """Take the host's power: no process of it, and nothing of its network, is left."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)
        self.exporter = None

    def cut(self) -> None:
        """Pull its network cable: what is sent there is lost without a word."""
        self.farm.ip("link", "set", f"v-{self.name}", "down")

    def mend(self) -> None:
        """Put the cable in again."""
        self.farm.ip("link", "set", f"v-{self.name}", "up")

    def end_ssh(self) -> None:
        """Kill every ssh connection to the host; its sshd takes new ones."""
        self.run("pkill", "-KILL", "-f", "sshd: .*@|sshd-session", deadline_s=10)


class Farm:
    """A network of hosts; see the module. ``folder`` is the test's own, below /tmp."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        # Unix sockets' paths are short.
        self.folder = Path(tempfile.mkdtemp(prefix="farm-net-"))
        self.rootless = os.getuid() != 0
        self.hosts: dict[str, Host] = {}
        self._opened = ExitStack()
        self._number = _CONTROLLER
        self.environment = {
            **os.environ,
            **(environment or {}),
            "LG_SSH_CONNECT_TIMEOUT": "10",
        }
        # The hosts have homes of their own, and one set of kernels.
        self.environment.setdefault("PANIC_FARM_CACHE", str(Path.home() / ".cache" / "panic-farm"))
        for name in ("LG_COORDINATOR", "LG_PROXY", "LG_PLACE", "LG_ENV", "XDG_RUNTIME_DIR"):
            self.environment.pop(name, None)

    @property
    def as_user(self) -> list[str]:
        """What makes a program the user's own again, who is root inside the namespaces."""
        if not self.rootless:
            return []
        return ["unshare", "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}"]

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.callback(shutil.rmtree, self.folder, ignore_errors=True)
            user = ["--user", "--map-root-user"] if self.rootless else []
            self._process = subprocess.Popen(
                [
                    *("unshare", *user, "--net", "--mount", "--pid", "--mount-proc", "--fork"),
                    *("--kill-child=SIGKILL", "sh", "-c", "while :; do sleep 1; done"),
                ],
                start_new_session=True,
            )
            opened.callback(self._process.wait)
            opened.callback(self._process.kill)
            self._pid = _init_of(self._process)
            for name in ("home", "python", "client"):
                (self.folder / name).mkdir()
            make_key(self.folder / "key")
            shutil.copy2(SSHD, self.folder / "sshd")
            shutil.copytree(Path(usb.__file__).parent, self.folder / "python" / "usb")
            (self.folder / "ssh_config").write_text("")
            (self.folder / "known_hosts").write_text("")
            write_script(
                self.folder / "client" / "ssh",
                f'exec {shutil.which("ssh")} -F {self.folder / "ssh_config"} "$@"',
            )
            self.environment["PATH"] = (
                f"{self.folder / 'client'}:{BIN}:{self.environment['PATH']}:/usr/sbin:/sbin"
            )
            self.ip("link", "set", "lo", "up")
            self.ip("link", "add", "br0", "type", "bridge")
            self.ip("addr", "add", f"{_NET}.{_CONTROLLER}/24", "dev", "br0")
            self.ip("link", "set", "br0", "up")
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            if host.exporter is not None:
                ask_to_end(host.exporter)
        for host in self.hosts.values():
            if host.exporter is not None:
                try:
                    host.exporter.wait(30)
                except subprocess.TimeoutExpired:
                    host.exporter.kill()
            if host.process.poll() is None:
                host.kill()
        self._opened.close()

    # -- the controller

    def ip(self, *words: str) -> None:
        """`ip` in the controller's network, with the machine's process ids."""
        user = ["--user", "--preserve-credentials"] if self.rootless else []
        subprocess.run(
            ["nsenter", "--target", str(self._pid), *user, "--net", "--", "ip", *words], check=True
        )

    def _entered(self, *words: str) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self.rootless else []
        return [
            *("nsenter", "--target", str(self._pid), *user),
            *("--net", "--mount", "--pid", "--", *_within(ROOT), *words),
        ]

    @property
    def controller(self) -> dict[str, str]:
        """The environment of programs on the controller, which labgrid's tools take as it is."""
        return {
            **self.environment,
            "HOME": str(self.folder / "home"),
            "PANIC_FARM_STATE": str(self.folder / "home" / "state"),
            "LG_COORDINATOR": ADDRESS,
            "LG_PROXY": COORDINATOR,
            "LG_HOSTNAME": "controller",
            "LG_USERNAME": "tester",
        }

    def start(self, *words: str, log: Path | None = None, **more: str) -> subprocess.Popen[bytes]:
        """Start a program on the controller; what it says goes to ``log``."""
        with (log or Path(os.devnull)).open("ab") as file:
            return subprocess.Popen(
                self._entered(*words),
                env=self.controller | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def run(
        self, *words: str, deadline_s: float = _DEADLINE_S, codes: Sequence[int] = (0,), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the controller; AssertionError when it ends otherwise than expected."""
        done = subprocess.run(
            self._entered(*words),
            env=self.controller | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert done.returncode in codes, (
            f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        return done

    # -- hosts

    def _add(self, name: str, boards: Sequence[str] = ()) -> Host:
        folder = self.folder / name
        if name in self.hosts:
            host = self.hosts[name]
        else:
            self._number += 1
            host = Host(self, name, self._number, folder)
            (folder / "bin").mkdir(parents=True)
            make_key(folder / "host_key")
            self._prepare(host)
        host.boards = tuple(boards)
        self.hosts[name] = host
        host.process = subprocess.Popen(
            self._entered(
                *("unshare", "--net", "--uts", "--mount", "--pid", "--mount-proc", "--fork"),
                *("--kill-child=SIGKILL", "sh", str(folder / "init")),
            ),
            env=host.environment,
            stdin=subprocess.DEVNULL,
            stdout=(folder / "init.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        host.pid = _init_of(host.process)
        veth = f"v-{name}"
        self.ip(
            *("link", "add", veth, "type", "veth"),
            *("peer", "name", "eth0", "netns", str(host.pid)),
        )
        self.ip("link", "set", veth, "master", "br0", "up")
        host.run("ip", "link", "set", "lo", "up", as_root=True)
        host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0", as_root=True)
        host.run("ip", "link", "set", "eth0", "up", as_root=True)
        wait_until(
            lambda: self.run("ssh", name, "true", codes=(0, 255)).returncode == 0, f"ssh {name}"
        )
        return host

    def _prepare(self, host: Host) -> None:
        """Write what the host is made of: sshd, its start, and how others reach it."""
        folder = host.folder
        base = os.path.realpath(sys.executable)
        write_script(
            folder / "bin" / "python3",
            f'export PYTHONPATH={self.folder / "python"}\nexec {base} -s -P "$@"',
        )
        path = f"{folder / 'bin'}:{self.folder / 'client'}:/usr/local/bin:/usr/bin:/bin:/sbin"
        write_script(
            folder / "command",
            f"export PATH={path} HOME={folder}\ncd {folder}\n"
            '[ -n "$SSH_ORIGINAL_COMMAND" ] || exec sh\nexec sh -c "$SSH_ORIGINAL_COMMAND"',
        )
        (folder / "sshd_config").write_text(
            f"ListenAddress {host.address}\nHostKey {folder / 'host_key'}\nPidFile none\n"
            f"UsePAM no\nStrictModes no\nAuthorizedKeysFile {self.folder / 'key.pub'}\n"
            f"PermitRootLogin yes\nForceCommand {folder / 'command'}\nMaxStartups 100\n"
        )
        lines = [
            f"hostname {host.name}",
            "mount -t tmpfs none /var/cache",
            # An address that is not there yet can be listened on.
            "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind",
            "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
        ]
        if os.getuid() == 0:
            users = PASSWD.read_text()
            if "\nsshd:" not in users:
                (folder / "passwd").write_text(
                    f"{users.rstrip()}\nsshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n"
                )
                lines.append(f"mount --bind {folder / 'passwd'} {PASSWD}")
            lines.append("mkdir -p /run/sshd")
        sshd = [str(self.folder / "sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
        lines.append(f"{' '.join([*self.as_user, *sshd])} &")
        # It is the namespace's first process, and takes orphans over.
        lines.append("while :; do sleep 1; done")
        (folder / "init").write_text("\n".join(lines) + "\n")
        with (self.folder / "ssh_config").open("a") as file:
            file.write(
                f"Host {host.name}\n  HostName {host.address}\n  User {getuser()}\n"
                f"  IdentityFile {self.folder / 'key'}\n"
                f"  StrictHostKeyChecking yes\n  UserKnownHostsFile {self.folder / 'known_hosts'}\n"
                f"{_SSH_OPTIONS}"
            )
        public = (folder / "host_key.pub").read_text()
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"{host.address} {public}")

    def add_coordinator(self) -> Host:
        """A host with labgrid's coordinator, which listens on its loopback only."""
        host = self._add(COORDINATOR)
        self._start_coordinator(host)
        return host

    def _start_coordinator(self, host: Host) -> None:
        log = host.folder / "coordinator.log"
        log.write_text("")
        host.exporter = host.start("labgrid-coordinator", "-l", ADDRESS, log=log.name)
        wait_until(lambda: "listening on" in log.read_text(), "the coordinator's start")

    def restart_coordinator(self) -> None:
        """Kill the coordinator, and start it again on what it has saved."""
        host = self.hosts[COORDINATOR]
        assert host.exporter is not None
        ask_to_end(host.exporter)
        host.exporter.wait(30)
        self._start_coordinator(host)

    def add_host(
        self, name: str, boards: Sequence[str] = (), *, more: str = "", wait: bool = True
    ) -> Host:
        """A host with an exporter of these virtual boards; ``more`` is added to its configuration.

        One that was killed comes back, as it was.
        """
        host = self._add(name, boards)
        text = "".join(f"{board}:\n  VirtualBoard: {{}}\n" for board in boards)
        (host.folder / "exporter.yaml").write_text(text + more)
        self.start_exporter(host, wait=wait)
        return host

    def start_exporter(self, host: Host, *, wait: bool = True) -> None:
        """Start the exporter of a host."""
        log = host.folder / "exporter.log"
        before = log.read_text() if log.exists() else ""
        host.exporter = host.start(
            *("farm", "exporter", "--coordinator", ADDRESS, "--hostname", host.name),
            str(host.folder / "exporter.yaml"),
            log="exporter.log",
            LG_PROXY=COORDINATOR,
        )
        exporter = host.exporter

        def ready() -> bool:
            said = log.read_text()[len(before) :]
            assert exporter.poll() is None, said
            return "exports to" in said

        if wait:
            wait_until(ready, f"the exporter of {host.name}")

    def add_place(self, board: str, host: str, *, device: str = "virtual") -> None:
        """A place for a board of a host, as `labgrid-client` makes it."""
        client = ("labgrid-client", "-p", board)
        self.run(*client, "create")
        self.run(*client, "add-match", f"{host}/{board}/*")
        self.run(*client, "set-tags", f"board={device}")
