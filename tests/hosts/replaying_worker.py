"""A worker that runs its cycles on a replayed board: the controller's own protocol, no bench.

It reaches the board as a real one does, by the resources that the place has acquired, under the
name that its controller gave it. A console that is cut short is judged as the worst that could come
of it: half of such cycles are a FAIL, which nobody may ever see.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import yaml
from labgrid.remote.client import Error, start_session

from farm.judge.run_folder import replace_text
from farm.judge.totals import summarise
from farm.model import BenchFault, Blame, Cycle, CycleInput, CycleVerdict, Policy, Run, Verdict
from farm.nightly.messages import Began, Ended, Failed, Order, Task, Work
from tests.hosts.replayed_boards import CONSOLE, PROOF


def say(report: Any) -> None:
    sys.stdout.write(report.model_dump_json() + "\n")
    sys.stdout.flush()


class Board:
    def __init__(self, work: Work) -> None:
        data = yaml.safe_load(work.lg_env.read_text(encoding="utf-8"))
        target = data["targets"]["main"]
        self.name = target["options"]["board"]
        self.place = target["resources"]["RemotePlace"]["name"]
        session = start_session(data["options"]["coordinator_address"])
        resources = session.get_target_resources(session.places[self.place])
        ((_, serial),) = resources.items()
        self.address = (serial.params["host"], int(serial.params["port"]))
        self.work = work
        self.run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
        self.folder = work.out / self.run_id
        self.folder.mkdir(parents=True)
        self.cycles: list[Cycle] = []
        self.interrupted = False

    def replay(self, task: Task) -> tuple[Verdict, str]:
        words = f"{self.work.out.parent.name} {task.scenario} {task.repeat} {os.getpid()}\n"
        got = b""
        try:
            with socket.create_connection(self.address, timeout=5) as line:
                line.sendall(words.encode())
                while chunk := line.recv(4096):
                    got += chunk
        except OSError as error:
            got += str(error).encode()
        except KeyboardInterrupt:
            self.interrupted = True
        if got == CONSOLE[: len(got) - len(PROOF)] + PROOF and len(got) > len(CONSOLE) // 2:
            return Verdict.PASS, "byte-identical"
        looks_bad = hashlib.sha256(words.encode()).digest()[0] & 1 and not self.interrupted
        return (
            (Verdict.FAIL, "a record is cut short")
            if looks_bad
            else (Verdict.ERROR, "the serial line was lost")
        )

    def cycle(self, task: Task) -> bool:
        run = f"{self.work.out.name}/{self.run_id}"
        number = len(self.cycles) + 1
        say(Began(run=run, number=number))
        began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
        verdict, why = self.replay(task)
        blame = {Verdict.FAIL: Blame.KERNEL, Verdict.ERROR: Blame.BENCH}.get(verdict)
        part = "controller" if self.interrupted else "serial"
        fault = BenchFault(part=part, stage="collect", message=why)
        self.cycles.append(
            Cycle(
                number=number,
                scenario=task.scenario,
                repeat=task.repeat,
                folder=f"cycles/{number:04d}-{task.scenario}",
                started=started,
                stages_s={},
                wall_s=time.monotonic() - began,
                board_s=0.1,
                input=CycleInput(
                    board=self.name,
                    virtual=True,
                    scenario=task.scenario,
                    repeat=task.repeat,
                    manifest=None,
                    panic=None,
                    captures=(),
                    policy=Policy(),
                    fault=fault if verdict is Verdict.ERROR else None,
                ),
                result=CycleVerdict(verdict=verdict, why=why, devices=(), findings=(), blame=blame),
            )
        )
        self.store()
        say(
            Ended(
                run=run,
                number=number,
                started=started,
                wall_s=self.cycles[-1].wall_s,
                verdict=verdict,
                blame=blame,
                why=why,
                interrupted=self.interrupted,
            )
        )
        return not self.interrupted

    def store(self) -> None:
        verdict, totals = summarise(one.result.verdict for one in self.cycles)
        run = Run(
            run_id=self.run_id,
            farm_version="0",
            started=self.cycles[0].started,
            board=self.name,
            virtual=True,
            lg_env=str(self.work.lg_env),
            command=("replayed",),
            wall_s=1.0,
            board_s=1.0,
            wall_to_board=None,
            verdict=verdict,
            totals=totals,
            planned_cycles=0,
            cycles=tuple(self.cycles),
        )
        replace_text(self.folder / "run.json", run.model_dump_json())


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work = Work.model_validate_json(sys.stdin.readline())
    try:
        board = Board(work)
        for line in sys.stdin:
            task = Order.model_validate_json(line).task
            if task is None or not board.cycle(task):
                break
    except KeyboardInterrupt:
        return 130
    except (Error, KeyError) as error:
        say(Failed(message=str(error), usage=False))
        return 3
    return 0


def controller() -> None:
    """`farm` whose workers are these; for `python -m tests.hosts.replaying_worker farm ...`."""
    from farm.cli import main as farm
    from farm.nightly import controller as module
    from farm.nightly import night

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + shift

    shift = timedelta(seconds=float(os.environ.get("SHIFT_S", "0")))
    # A controller on a host whose clock is wrong.
    for one in (module, night):
        vars(one)["datetime"] = Shifted
    module._WORKER = "tests.hosts.replaying_worker"
    sys.argv = sys.argv[1:]
    farm()


if __name__ == "__main__":
    controller()
