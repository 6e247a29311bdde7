"""Nights made of real panics: the golden captures of the judge's tests, some of them damaged.

What is damaged is judged anew by the judge itself, so no verdict here is made up.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm.decode.output import new_record
from farm.formats.encode import encode_record
from farm.formats.record import decode_record
from farm.judge.run_folder import INPUT_NAME, load_run, rejudge, write_judged
from farm.judge.totals import summarise
from farm.model import (
    BenchFault,
    Capture,
    CycleInput,
    Night,
    NightBoard,
    NightCell,
    NightCycle,
    NightHole,
    NightKernel,
    Run,
)
from farm.report import write_reports
from tests.judge.mutation import GOLDEN
from tests.nights import night_cycle

Damage = Callable[[Path], None]


def unpacked(name: str, folder: Path) -> Path:
    data = lzma.decompress((GOLDEN / f"{name}.tar.xz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def stored_input(cycle: Path) -> CycleInput:
    return CycleInput.model_validate_json((cycle / INPUT_NAME).read_text(encoding="utf-8"))


def store_input(cycle: Path, value: CycleInput) -> None:
    (cycle / INPUT_NAME).write_text(value.model_dump_json(), encoding="utf-8")


def replaced(cycle: Path, capture: Capture, data: bytes) -> None:
    """Store other bytes as what the channel had read."""
    (cycle / capture.path).write_bytes(data)
    value = stored_input(cycle)
    update = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    captures = tuple(
        one.model_copy(update=update) if one.path == capture.path else one for one in value.captures
    )
    store_input(cycle, value.model_copy(update={"captures": captures}))


def record_of(cycle: Path, device: str) -> tuple[Capture, bytes]:
    for capture in stored_input(cycle).captures:
        if capture.channel == "pstorefs" and capture.board_name.startswith("panicdump-"):
            data = (cycle / capture.path).read_bytes()
            if decode_record(data).device == device:
                return capture, data
    raise AssertionError(device)


def truncated(device: str, by_bytes: int) -> Damage:
    """A driver that hands over less than it registered: its last region ends early."""

    def damage(cycle: Path) -> None:
        capture, data = record_of(cycle, device)
        record = decode_record(data)
        new = new_record(record)
        *before, last = new.regions
        short = replace(last, data=last.data[:-by_bytes], flags=1)
        cut = encode_record(
            replace(new, regions=[*before, short], flags=1),
            record.form.value,
            release=record.release or "",
            build_id=bytes.fromhex(record.build_id or ""),
        )
        replaced(cycle, capture, cut)

    return damage


def flipped(device: str, at: int) -> Damage:
    """What pstorefs handed out differs from memory: a bit of the file is another one."""

    def damage(cycle: Path) -> None:
        capture, data = record_of(cycle, device)
        region = decode_record(data).regions[0]
        bad = bytearray(data)
        bad[region.offset + at] ^= 0x10
        replaced(cycle, capture, bytes(bad))

    return damage


def bench_lost(cycle: Path) -> None:
    fault = BenchFault(
        part="serial", stage="collect", message="the serial line was lost", next_step="Look at it."
    )
    store_input(
        cycle,
        stored_input(cycle).model_copy(update={"captures": (), "channels": (), "fault": fault}),
    )


@dataclass
class Board:
    """A run of a night: which golden one, on which board, and what is wrong with its cycles."""

    golden: str
    name: str
    damage: dict[int, Damage] = field(default_factory=dict)
    set_aside: str = ""
    gone: bool = False
    training: bool = False


def make_night(
    nights: Path,
    night_id: str,
    boards: list[Board],
    *,
    plan: str = "every board",
    holes: tuple[NightHole, ...] = (),
    run_reports: bool = False,
) -> Path:
    """Write a night's folder; its cells are sysrq-c with two repeats on each board."""
    folder = nights / night_id
    folder.mkdir(parents=True)
    cycles: list[NightCycle] = []
    runs: list[str] = []
    date = f"{night_id[:4]}-{night_id[4:6]}-{night_id[6:8]}T20:00:00.000+00:00"
    for board in boards:
        name = f"runs/{night_id[:8]}-200000-{len(runs) + 1:04x}"
        run_dir = unpacked(board.golden, folder / name)
        for number, damage in board.damage.items():
            damage(run_dir / load_run(run_dir).cycles[number - 1].folder)
        run = rejudge(run_dir).model_copy(update={"run_id": Path(name).name})
        write_judged(run_dir, run)
        if run_reports:
            write_reports(run_dir, run)
        runs.append(name)
        for cycle in run.cycles:
            (run_dir / cycle.folder / "console.log").write_text(
                "\n".join(cycle.input.panic.panic_console_lines if cycle.input.panic else ()),
                encoding="utf-8",
            )
            channels = next(
                tuple(sorted({read.channel for read in one.input.channels}))
                for one in (cycle, *run.cycles)
                if one.input.channels
            )
            cycles.append(
                night_cycle(
                    name,
                    cycle,
                    kernel="6.12",
                    board=board.name,
                    channels=channels,
                    training=board.training,
                )
            )
        if board.gone:
            (run_dir / "run.json").unlink()
    verdict, totals = summarise(one.verdict for one in cycles if one.counts)
    night = Night(
        night_id=night_id,
        plan=plan,
        plan_sha256="5d" * 32,
        farm_version="0.1.0",
        started=date,
        finished=date,
        wall_s=sum(one.wall_s for one in cycles),
        verdict=verdict,
        totals=totals,
        kernels=(NightKernel(name="6.12", release="6.12.117", build_id="e1928da0"),),
        boards=tuple(
            NightBoard(name=one.name, lg_env="virtual.yaml", virtual=True, set_aside=one.set_aside)
            for one in boards
        ),
        runs=tuple(runs),
        cycles=tuple(cycles),
        holes=holes,
    )
    (folder / "night.json").write_text(night.model_dump_json(indent=1), encoding="utf-8")
    return folder


def hole(board: str, scenario: str = "lkdtm-bug", reason: str = "the night was over") -> NightHole:
    cell = NightCell(
        kernel="6.12", board=board, scenario=scenario, channels=("pstorefs",), repeat=1
    )
    return NightHole(cell=cell, reason=reason)


def stored_night(nights: Path, night: Night, runs: Mapping[str, Run]) -> Path:
    """Write a night that was made from values, without evidence."""
    folder = nights / night.night_id
    for name, run in runs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "run.json").write_text(run.model_dump_json(), encoding="utf-8")
    (folder / "night.json").write_text(night.model_dump_json(), encoding="utf-8")
    return folder
