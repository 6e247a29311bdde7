"""Two hundred boards that talk, on one controller: is a byte lost, and what does a board cost?

    python -m tests.figures.replay [--boards 10,50,200] [--seconds 600] [--json]

A process of its own plays the recorded console of a virtual board at the speed of the recording,
on as many lines as there are boards, through labgrid's own resources: NetworkSerialPort, every
second one RFC2217, the others raw, and NetworkPowerPort, which starts it. On the controller's side
is what a night has: a worker process per board, started as a night starts it, in it a labgrid
target with the RecordedConsole driver, and a wait that searches; and a controller that hears what
every worker says. The last count runs for all the seconds, those before it for a fifth of them.

Fails when what a RecordedConsole has stored is not, by its sha256, what was sent; when the boards
take more than the two processors have; and when a board among many costs more than among few.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from farm.bench.recording import RAW_NAME
from farm.nightly.messages import REPORT, Note
from farm.nightly.workers import WorkerProcess, start_worker
from tests.figures.processes import descendants, memory, own_cpu_s

WORKER = "tests.figures.replayed_worker"
OPEN_DEADLINE_S = 300.0
END_DEADLINE_S = 120.0
SAMPLE_S = 5.0
# A board among the most may cost so much more than one among the fewest.
LINEAR_WITHIN = 1.25
PROCESSORS = 2

ENVIRONMENT = """\
imports: [farm.bench.strategy]
targets:
  main:
    features: []
    options: {{board: replayed-{number}, virtual: true, prompt: 'root@virtual:~# '}}
    resources:
      NetworkSerialPort: {{host: 127.0.0.1, port: {serial}, speed: 115200, protocol: {protocol}}}
      NetworkPowerPort:
        model: simplerest
        host: 'http://127.0.0.1:{power}/power/{{index}}/{{value}}'
        index: '0'
    drivers:
      RecordedConsole: {{}}
      BoardShell: {{}}
      NetworkPowerDriver: {{delay: 0.1}}
      PanicFarmStrategy: {{}}
"""


@dataclass
class Figures:
    """What so many boards cost: CPU in seconds a second, memory in KiB.

    ``pss_kib`` is all that the controller's processes hold, each page counted once;
    ``worker_kib`` what one more worker takes: what it alone has.
    """

    boards: int
    seconds: float
    bytes: int
    lost_boards: int
    panics: int
    open_s: float
    open_cpu_s: float
    cpu: float
    controller_cpu: float
    player_cpu: float
    pss_kib: int
    rss_of_worker_kib: int
    worker_kib: int
    late_s: float

    @property
    def cpu_per_board(self) -> float:
        """CPU seconds a second for one board."""
        return self.cpu / self.boards

    def words(self) -> str:
        """The figures in a line."""
        return (
            f"{self.boards} boards, {self.seconds:.0f} s, {self.bytes / (1 << 20):.1f} MiB, "
            f"{self.panics} panics seen: {self.lost_boards} lost a byte; "
            f"{self.cpu:.3f} CPUs ({1000 * self.cpu_per_board:.2f} ms/s a board, of it the "
            f"controller's own {self.controller_cpu:.3f} in all), player {self.player_cpu:.3f}; "
            f"memory {self.pss_kib / 1024:.0f} MiB in all, a worker {self.worker_kib / 1024:.1f} "
            f"MiB of its own (resident {self.rss_of_worker_kib / 1024:.0f}); opened in "
            f"{self.open_s:.1f} s with {self.open_cpu_s:.1f} CPU s; the player was late by "
            f"{self.late_s:.2f} s at most; load {os.getloadavg()[0]:.1f}"
        )


class Controller:
    """Hears what workers say, as a night's controller does."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.said: dict[str, Counter[str]] = {}
        self._unread: dict[str, bytes] = {}

    def add(self, name: str, worker: WorkerProcess) -> None:
        self.said[name], self._unread[name] = Counter(), b""
        os.set_blocking(worker.stdout.fileno(), False)
        self.selector.register(worker.stdout, selectors.EVENT_READ, name)

    def listen(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            name: str = key.data
            data = os.read(key.fd, 1 << 16)
            if not data:
                self.selector.unregister(key.fileobj)
                continue
            *lines, self._unread[name] = (self._unread[name] + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValidationError):
                    note = REPORT.validate_json(line)
                    if isinstance(note, Note):
                        self.said[name][note.text] += 1

    def wait(self, text: str, deadline_s: float) -> None:
        """Until all have said it."""
        end = time.monotonic() + deadline_s
        while missing := [name for name, said in self.said.items() if not said[text]]:
            if time.monotonic() > end:
                sys.exit(f"{len(missing)} boards did not say {text!r}, the first is {missing[0]}")
            self.listen(0.5)


def _wait_file(path: Path, player: subprocess.Popen[bytes]) -> Any:
    end = time.monotonic() + 60
    while not path.exists():
        if player.poll() is not None or time.monotonic() > end:
            sys.exit("the player of the consoles does not start")
        time.sleep(0.05)
    return json.loads(path.read_text())


def _sha256(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def replay(count: int, seconds: float, folder: Path) -> Figures:
    """Have ``count`` boards talk for so long, and measure."""
    played = folder / "played"
    played.mkdir(parents=True)
    player = subprocess.Popen(
        [sys.executable, "-m", "tests.figures.replayed_boards", str(count), str(played)]
    )
    controller = Controller()
    workers: list[WorkerProcess] = []
    logs: list[IO[bytes]] = []
    try:
        ports = _wait_file(played / "boards.json", player)
        began, cpu_before = time.monotonic(), time.process_time()
        for number, port in enumerate(ports):
            name = f"replayed-{number}"
            lg_env = folder / f"{name}.yaml"
            lg_env.write_text(ENVIRONMENT.format(number=number, **port))
            logs.append((folder / f"{name}.log").open("wb"))
            worker = start_worker(name, logs[-1], module=WORKER)
            workers.append(worker)
            controller.add(name, worker)
            worker.stdin.write(f"{lg_env}\n{folder / name}\n".encode())
            worker.stdin.flush()
        controller.wait("ready", OPEN_DEADLINE_S)
        open_s = time.monotonic() - began
        below = [one for one in descendants(os.getpid()) if one != player.pid]
        open_cpu_s = sum(map(own_cpu_s, below)) + time.process_time() - cpu_before
        for worker in workers:
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
        controller.wait("shell", OPEN_DEADLINE_S)
        # Everything has been loaded and searched once: from here on it is steady.
        start = time.monotonic()
        before = [sum(map(own_cpu_s, below)), time.process_time(), own_cpu_s(player.pid)]
        while time.monotonic() < start + seconds:
            controller.listen(min(0.5, max(0.0, start + seconds - time.monotonic())))
        after = [sum(map(own_cpu_s, below)), time.process_time(), own_cpu_s(player.pid)]
        spent_s = time.monotonic() - start
        in_workers, in_controller, in_player = (
            (b - a) / spent_s for a, b in zip(before, after, strict=True)
        )
        held = [memory(one) for one in (os.getpid(), *below)]
        of_workers = [memory(one.pid) for one in workers]
        for worker in workers:
            worker.stdin.close()
        controller.wait("done", END_DEADLINE_S)
        for worker in workers:
            worker.wait(END_DEADLINE_S)
        player.send_signal(signal.SIGTERM)
        player.wait(30)
        sent = json.loads((played / "sent.json").read_text())
    finally:
        for worker in workers:
            worker.kill()
        player.kill()
        player.wait()
        for log in logs:
            log.close()
    stored = [_sha256(folder / f"replayed-{n}" / RAW_NAME) for n in range(count)]
    lost = [
        (n, had, one)
        for n, (had, one) in enumerate(zip(stored, sent, strict=True))
        if had != (one["bytes"], one["sha256"])
    ]
    for n, had, one in lost[:5]:
        print(f"replayed-{n}: stored {had}, sent {one}", file=sys.stderr)
    return Figures(
        boards=count,
        seconds=spent_s,
        bytes=sum(size for size, _ in stored),
        lost_boards=len(lost),
        panics=sum(said["panic"] for said in controller.said.values()),
        open_s=open_s,
        open_cpu_s=open_cpu_s,
        cpu=in_workers + in_controller,
        controller_cpu=in_controller,
        player_cpu=in_player,
        pss_kib=sum(one.pss_kib for one in held),
        rss_of_worker_kib=sum(one.rss_kib for one in of_workers) // count,
        worker_kib=sum(one.own_kib for one in of_workers) // count,
        late_s=max(one["late_s"] for one in sent),
    )


def complaints(found: list[Figures]) -> list[str]:
    """What is not as it should be."""
    said = [f"{one.lost_boards} of {one.boards} boards lost a byte" for one in found]
    said = [text for text, one in zip(said, found, strict=True) if one.lost_boards]
    said += [
        f"{one.boards} boards take {one.cpu:.2f} CPUs of {PROCESSORS}"
        for one in found
        if one.cpu > PROCESSORS
    ]
    few, many = found[0], found[-1]
    for what, a, b in (
        ("CPU time", few.cpu_per_board, many.cpu_per_board),
        ("memory", float(few.worker_kib), float(many.worker_kib)),
    ):
        if b > a * LINEAR_WITHIN:
            said.append(
                f"a board among {many.boards} takes {b / a:.2f} times the {what} of one among "
                f"{few.boards}"
            )
    return said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.figures.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--boards", default="10,50,200")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the recordings")
    asked = parser.parse_args()
    counts = [int(word) for word in asked.boards.split(",")]
    folder = Path(tempfile.mkdtemp(prefix="farm-replay-"))
    found = []
    try:
        for count in counts:
            seconds = asked.seconds if count == counts[-1] else asked.seconds / 5
            found.append(replay(count, seconds, folder / str(count)))
            if not asked.json:
                print(found[-1].words(), flush=True)
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    said = complaints(found)
    if not asked.json and len(found) > 1:
        few, many = found[0], found[-1]
        print(
            f"a board among {many.boards} takes {many.cpu_per_board / few.cpu_per_board:.2f} times "
            f"the CPU time and {many.worker_kib / few.worker_kib:.2f} times the memory of one "
            f"among {few.boards}"
        )
    if said:
        sys.exit("; ".join(said))


if __name__ == "__main__":
    main()
