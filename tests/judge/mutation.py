"""Damage real captures at random, judge them, and hold each verdict against the undamaged bytes.

    python -m tests.judge.mutation --count 6000 --seed 1

False PASS: the verdict is PASS although some record that a channel delivered is not what the
undamaged capture holds, or one is gone. Wrong FAIL: all damage is such that ECC repairs it, and
the verdict is not PASS; or the bench has read in part or lost what it read, and the verdict is not
ERROR. The captures are those of `tests/judge/golden`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import random
import struct
import sys
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from farm.errors import FormatError
from farm.formats.pattern import expected_bytes
from farm.formats.ramoops import PanicdumpZone, decode_panicdump_zone, zone_layout
from farm.formats.record import REGION, RecordState, decode_record
from farm.judge import judge
from farm.judge.channels import zone_span
from farm.judge.run_folder import checked
from farm.model import Capture, CycleInput, CycleVerdict, Run, Verdict

GOLDEN = Path(__file__).with_name("golden")
NAMES = tuple(sorted(path.name.removesuffix(".tar.xz") for path in GOLDEN.glob("*.tar.xz")))
ECC_BLOCK = 128
NOTICE = b"\nECC: "


@dataclass(frozen=True)
class Golden:
    """A cycle as it was recorded: its input, and the bytes of its captures by path."""

    name: str
    cycle: CycleInput
    files: dict[str, bytes]


@cache
def load(name: str) -> tuple[Golden, ...]:
    """The cycles of a golden run."""
    members: dict[str, bytes] = {}
    data = lzma.decompress((GOLDEN / f"{name}.tar.xz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar.getmembers():
            file = tar.extractfile(entry)
            assert file is not None
            members[entry.name] = file.read()
    run = Run.model_validate_json(members["run.json"])
    found = []
    for one in run.cycles:
        prefix = f"{one.folder}/"
        files = {
            path.removeprefix(prefix): content
            for path, content in members.items()
            if path.startswith(f"{prefix}captures/")
        }
        cycle = CycleInput.model_validate_json(members[f"{prefix}input.json"])
        found.append(Golden(name, cycle, files))
    return tuple(found)


@dataclass
class Mutant:
    """A golden cycle, to be damaged; ``files`` and ``captures`` are its own."""

    golden: Golden
    other: Golden
    rng: random.Random
    captures: list[Capture] = field(init=False)
    files: dict[str, bytes] = field(init=False)
    repairable: bool = False
    bench: bool = False
    stored: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.captures = list(self.golden.cycle.captures)
        self.files = dict(self.golden.files)

    # -- what there is

    def records(self) -> list[Capture]:
        return [one for one in self.captures if one.channel == "pstorefs"]

    def region(self) -> Capture | None:
        found = [one for one in self.captures if one.paddr is not None and not one.ground_truth]
        return found[0] if found else None

    @property
    def ecc(self) -> int:
        ramoops = self.golden.cycle.manifest.ramoops if self.golden.cycle.manifest else None
        assert ramoops is not None
        return ramoops.ecc_size_bytes

    def zone_at(self, region: Capture) -> tuple[int, int]:
        """Where in a region's capture the panicdump zone lies, and its size."""
        manifest = self.golden.cycle.manifest
        assert manifest is not None
        assert manifest.ramoops is not None
        assert region.paddr is not None
        start, size, _ = zone_span(manifest.ramoops)
        return start - region.paddr, size

    def zone(self) -> bytearray:
        region = self.region()
        assert region is not None
        at, size = self.zone_at(region)
        return bytearray(self.files[region.path][at : at + size])

    def put_zone(self, zone: bytes, *, also_files: bool) -> None:
        """Have this zone in the region; and in pstorefs, as the kernel would show it."""
        region = self.region()
        assert region is not None
        at, size = self.zone_at(region)
        data = self.files[region.path]
        self.files[region.path] = data[:at] + zone + data[at + size :]
        if also_files and self.records():
            self._show(decode_panicdump_zone(zone, self.ecc))

    def _show(self, zone: PanicdumpZone) -> None:
        notice = b""
        if self.ecc:
            symbols, bad = zone.zone.corrected_symbols, len(zone.zone.bad_blocks)
            notice = b"\nECC: No errors detected\n"
            if symbols or bad:
                notice = f"\nECC: {symbols} Corrected bytes, {bad} unrecoverable blocks\n".encode()
        template = self.records()[0]
        self.captures = [one for one in self.captures if one.channel != "pstorefs"]
        for frame in zone.frames:
            if frame.ordinal is None or frame.state != 0x4556_494C:
                continue
            name = f"panicdump-ramoops-{frame.ordinal}"
            path = f"captures/pstorefs/shown-{frame.ordinal}.bin"
            self.files[path] = frame.data + notice
            self.captures.append(template.model_copy(update={"board_name": name, "path": path}))

    # -- the verdict

    def judged(self) -> CycleVerdict:
        """Judge the damaged cycle; sizes and sums are those of the damaged bytes."""
        captures = [
            one
            if one.path in self.stored
            else one.model_copy(
                update={
                    "size_bytes": len(self.files[one.path]),
                    "sha256": hashlib.sha256(self.files[one.path]).hexdigest(),
                }
            )
            for one in self.captures
        ]
        cycle = self.golden.cycle.model_copy(update={"captures": tuple(captures)})
        return judge(cycle, lambda one: checked(one, self.files[one.path]))

    def right(self) -> bool:
        """Whether every channel still delivers every record as it was, and nothing else."""
        wanted = self._delivered(self.golden.cycle.captures, self.golden.files)
        return self._delivered(self.captures, self.files) == wanted

    def _delivered(
        self, captures: list[Capture] | tuple[Capture, ...], files: dict[str, bytes]
    ) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for one in captures:
            if one.ground_truth:
                continue
            data = files[one.path]
            if one.paddr is None:
                end = data.rfind(NOTICE)
                record = data if end < 0 or not self.ecc else data[:end]
                found.setdefault(one.channel, []).append(record)
                continue
            at, size = self.zone_at(one)
            zone = decode_panicdump_zone(data[at : at + size], self.ecc)
            found[one.channel] = [frame.data for frame in zone.frames if frame.within]
        return {channel: sorted(records) for channel, records in found.items()}


# -- damages of single files


def _a_file(mutant: Mutant) -> Capture | None:
    records = mutant.records()
    return mutant.rng.choice(records) if records else None


def _change(
    mutant: Mutant, change: Callable[[random.Random, bytearray], bytes | bytearray]
) -> bool:
    capture = _a_file(mutant)
    if capture is None:
        return False
    data = bytearray(mutant.files[capture.path])
    mutant.files[capture.path] = bytes(change(mutant.rng, data))
    return True


def _flip(rng: random.Random, data: bytearray, begin: int = 0, end: int | None = None) -> None:
    at = rng.randrange(begin, len(data) if end is None else end)
    data[at] ^= 1 << rng.randrange(8)


def flip_bits(mutant: Mutant) -> bool:
    def change(rng: random.Random, data: bytearray) -> bytearray:
        for _ in range(rng.choice((1, 1, 2, 3, 8, 64))):
            _flip(rng, data)
        return data

    return _change(mutant, change)


def flip_telling_bits(mutant: Mutant) -> bool:
    """Flip bits in headers, descriptors and the commit mark, where few bytes say much."""

    def change(rng: random.Random, data: bytearray) -> bytearray:
        begin, end = rng.choice(((0, 256), (0, min(1024, len(data))), (len(data) - 64, len(data))))
        _flip(rng, data, begin, end)
        return data

    return _change(mutant, change)


def truncate(mutant: Mutant) -> bool:
    return _change(mutant, lambda rng, data: data[: rng.randrange(len(data))])


def extend(mutant: Mutant) -> bool:
    def change(rng: random.Random, data: bytearray) -> bytes:
        more = rng.choice((rng.randbytes(rng.randint(1, 64)), bytes(16), bytes(data[-32:])))
        return bytes(data) + more

    return _change(mutant, change)


def lose_header(mutant: Mutant) -> bool:
    def change(rng: random.Random, data: bytearray) -> bytearray:
        size = rng.choice((4, 16, 64, 192, 512))
        data[:size] = rng.choice((bytes(size), rng.randbytes(size)))
        return data

    return _change(mutant, change)


def blank(mutant: Mutant) -> bool:
    """A run of bytes reads as zeros, ones or noise, as of a page that never reached memory."""

    def change(rng: random.Random, data: bytearray) -> bytearray:
        at = rng.randrange(len(data))
        size = min(len(data) - at, rng.choice((1, 8, 64, 4096)))
        data[at : at + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
        return data

    return _change(mutant, change)


def save_wrong(mutant: Mutant) -> bool:
    """Wrong bytes of a test device under checksums that hold: the kernel saved them so."""
    chosen = [one for one in mutant.records() if _planted(mutant.files[one.path])]
    if not chosen:
        return False
    capture = mutant.rng.choice(chosen)
    data = bytearray(mutant.files[capture.path])
    record = decode_record(bytes(data))
    region = mutant.rng.choice([one for one in record.regions if one.saved_bytes])
    for _ in range(mutant.rng.choice((1, 1, 5))):
        _flip(mutant.rng, data, region.offset, region.offset + region.saved_bytes)
    content = bytes(data[region.offset : region.offset + region.saved_bytes])
    at = record.header_offset + 192 + region.index * 96 + REGION.offset_of("crc")
    data[at : at + 4] = struct.pack("<I", zlib.crc32(content))
    end = record.record_size_bytes
    data[end - 12 : end - 8] = struct.pack("<I", zlib.crc32(bytes(data[: end - 16])))
    assert decode_record(bytes(data)).state is RecordState.INTACT
    mutant.files[capture.path] = bytes(data)
    return True


def _planted(data: bytes) -> bool:
    """Whether this is the whole record of a test device."""
    try:
        record = decode_record(data)
    except FormatError:
        return False
    return (
        record.state is RecordState.INTACT
        and record.driver == "panicdump-sample"
        and any(one.saved_bytes for one in record.regions)
    )


def of_another_nonce(mutant: Mutant) -> bool:
    """What the test device held in another panic, under checksums that hold."""
    chosen = [one for one in mutant.records() if _planted(mutant.files[one.path])]
    if not chosen:
        return False
    capture = mutant.rng.choice(chosen)
    data = bytearray(mutant.files[capture.path])
    record = decode_record(bytes(data))
    number = int(record.device.rpartition(".")[2])
    for region in record.regions:
        content = expected_bytes(mutant.rng.getrandbits(64), number, region.index, len(region.data))
        data[region.offset : region.offset + len(content)] = content
        at = record.header_offset + 192 + region.index * 96 + REGION.offset_of("crc")
        data[at : at + 4] = struct.pack("<I", zlib.crc32(content))
    end = record.record_size_bytes
    data[end - 12 : end - 8] = struct.pack("<I", zlib.crc32(bytes(data[: end - 16])))
    mutant.files[capture.path] = bytes(data)
    return True


# -- records moved, lost, doubled


def swap_records(mutant: Mutant) -> bool:
    """Two records of one panic under each other's name: every byte is there still."""
    records = mutant.records()
    if len(records) < 2:
        return False
    first, second = mutant.rng.sample(records, 2)
    files = mutant.files
    files[first.path], files[second.path] = files[second.path], files[first.path]
    return True


def overwrite_record(mutant: Mutant) -> bool:
    records = mutant.records()
    if len(records) < 2:
        return False
    first, second = mutant.rng.sample(records, 2)
    mutant.files[first.path] = mutant.files[second.path]
    return True


def record_of_another_run(mutant: Mutant) -> bool:
    records = mutant.records()
    others = [one for one in mutant.other.cycle.captures if one.channel == "pstorefs"]
    if not records or not others:
        return False
    for _ in range(mutant.rng.choice((1, 1, 3))):
        at = mutant.rng.randrange(min(len(records), len(others)))
        at_other = at if mutant.rng.random() < 0.7 else mutant.rng.randrange(len(others))
        mutant.files[records[at].path] = mutant.other.files[others[at_other].path]
    return True


def all_of_another_run(mutant: Mutant) -> bool:
    mutant.captures = list(mutant.other.cycle.captures)
    mutant.files = dict(mutant.other.files)
    return True


def half_of_another_record(mutant: Mutant) -> bool:
    records = mutant.records()
    if len(records) < 2:
        return False
    first, second = mutant.rng.sample(records, 2)
    one, two = mutant.files[first.path], mutant.files[second.path]
    at = mutant.rng.randrange(1, len(one))
    mutant.files[first.path] = one[:at] + two[at:]
    return True


def drop_records(mutant: Mutant) -> bool:
    records = mutant.records()
    if not records:
        return False
    count = mutant.rng.choice((1, 1, 2, len(records)))
    gone = mutant.rng.sample(records, min(count, len(records)))
    mutant.captures = [one for one in mutant.captures if one not in gone]
    return True


def double_record(mutant: Mutant) -> bool:
    capture = _a_file(mutant)
    if capture is None:
        return False
    path = "captures/pstorefs/again.bin"
    mutant.files[path] = mutant.files[capture.path]
    again = capture.model_copy(update={"board_name": "panicdump-ramoops-99", "path": path})
    mutant.captures.insert(mutant.rng.randrange(len(mutant.captures) + 1), again)
    return True


# -- damages of the region


def _zone_damage(
    mutant: Mutant, change: Callable[[random.Random, bytearray, list[tuple[int, int]]], None]
) -> bool:
    if mutant.region() is None:
        return False
    zone = mutant.zone()
    frames = decode_panicdump_zone(bytes(zone), mutant.ecc).frames
    spans = [(one.offset, one.data_offset + len(one.data)) for one in frames if one.within]
    change(mutant.rng, zone, spans)
    # In memory itself every channel sees it; else only the one whose wire did it.
    mutant.put_zone(bytes(zone), also_files=mutant.rng.random() < 0.6)
    return True


def flip_in_memory(mutant: Mutant) -> bool:
    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        for _ in range(rng.choice((1, 2, 8, 100))):
            _flip(rng, zone, *rng.choice(spans))

    return _zone_damage(mutant, change)


def flip_what_ecc_repairs(mutant: Mutant) -> bool:
    """At most half as many wrong bytes in a block as it has bytes of parity."""
    if not mutant.ecc:
        return False

    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        layout = zone_layout(len(zone), mutant.ecc)
        used = max(end for _, end in spans) - layout.data_offset
        blocks = list(range(-(-used // ECC_BLOCK)))
        for block in rng.sample(blocks, min(len(blocks), rng.choice((1, 3, 30)))):
            at = layout.data_offset + block * ECC_BLOCK
            places = list(range(at, min(at + ECC_BLOCK, layout.parity_offset)))
            parity = layout.parity_offset + block * mutant.ecc
            places += range(parity, parity + mutant.ecc)
            for place in rng.sample(places, rng.randint(1, mutant.ecc // 2)):
                zone[place] ^= rng.randint(1, 255)
        if rng.random() < 0.3:
            for place in rng.sample(range(12), rng.randint(1, mutant.ecc // 2)):
                zone[place] ^= rng.randint(1, 255)

    mutant.repairable = True
    return _zone_damage(mutant, change)


def flip_more_than_ecc_repairs(mutant: Mutant) -> bool:
    if not mutant.ecc:
        return False

    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        begin, end = rng.choice(spans)
        data_at = zone_layout(len(zone), mutant.ecc).data_offset
        at = data_at + (rng.randrange(begin, end) - data_at) // ECC_BLOCK * ECC_BLOCK
        for place in rng.sample(range(at, at + ECC_BLOCK), rng.randint(9, 40)):
            zone[place] ^= rng.randint(1, 255)

    return _zone_damage(mutant, change)


def lose_zone_header(mutant: Mutant) -> bool:
    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        which = rng.choice(("all", "zeros", "size", "start", "parity"))
        if which in ("all", "zeros"):
            zone[:12] = rng.randbytes(12) if which == "all" else bytes(12)
        elif which == "size":
            zone[8:12] = struct.pack("<I", rng.randrange(max(end for _, end in spans)))
        elif which == "start":
            zone[4:8] = struct.pack("<I", rng.randrange(1, 4096))
        if mutant.ecc:
            at = zone_layout(len(zone), mutant.ecc).header_parity_offset
            zone[at : at + mutant.ecc] = rng.randbytes(mutant.ecc)

    return _zone_damage(mutant, change)


def lose_frame_header(mutant: Mutant) -> bool:
    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        at, _ = rng.choice(spans)
        zone[at : at + 16] = rng.choice((bytes(16), rng.randbytes(16)))

    return _zone_damage(mutant, change)


def tear_zone(mutant: Mutant) -> bool:
    """The zone's end never reached memory."""

    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        at = rng.randrange(12, max(end for _, end in spans))
        end = zone_layout(len(zone), mutant.ecc).parity_offset if mutant.ecc else len(zone)
        zone[at:end] = bytes(end - at)

    return _zone_damage(mutant, change)


def blank_pages(mutant: Mutant) -> bool:
    def change(rng: random.Random, zone: bytearray, spans: list[tuple[int, int]]) -> None:
        begin, end = rng.choice(spans)
        at = rng.randrange(begin, end) // 4096 * 4096
        zone[at : at + 4096] = bytes(min(4096, len(zone) - at))

    return _zone_damage(mutant, change)


def zone_of_another_run(mutant: Mutant) -> bool:
    if mutant.region() is None:
        return False
    other = Mutant(mutant.other, mutant.golden, mutant.rng)
    if other.region() is None or other.ecc != mutant.ecc:
        return False
    mutant.put_zone(bytes(other.zone()), also_files=mutant.rng.random() < 0.6)
    return True


def cut_region(mutant: Mutant) -> bool:
    region = mutant.region()
    if region is None:
        return False
    at, size = mutant.zone_at(region)
    data = mutant.files[region.path]
    mutant.files[region.path] = data[: mutant.rng.randrange(at + size)]
    mutant.bench = True
    return True


def wipe_region(mutant: Mutant) -> bool:
    region = mutant.region()
    if region is None:
        return False
    mutant.files[region.path] = bytes(len(mutant.files[region.path]))
    mutant.bench = True
    return True


# -- damages on the farm's disk, and several at once


def change_what_was_stored(mutant: Mutant) -> bool:
    """A capture changes after it was stored: its sum tells."""
    capture = mutant.rng.choice(mutant.captures)
    data = bytearray(mutant.files[capture.path])
    _flip(mutant.rng, data)
    mutant.files[capture.path] = bytes(data)
    mutant.stored.add(capture.path)
    mutant.bench = True
    return True


def read_in_part(mutant: Mutant) -> bool:
    """The read-back was cut off, and says so."""
    chosen = [one for one in mutant.captures if not one.ground_truth]
    for capture in mutant.rng.sample(chosen, mutant.rng.choice((1, 1, len(chosen)))):
        data = mutant.files[capture.path]
        mutant.files[capture.path] = data[: mutant.rng.randrange(len(data))]
        at = mutant.captures.index(capture)
        mutant.captures[at] = capture.model_copy(update={"complete": False, "note": "cut off"})
    mutant.bench = True
    return True


def several(mutant: Mutant) -> bool:
    chosen = mutant.rng.choices(_SINGLE, k=mutant.rng.randint(2, 4))
    done = [damage(mutant) for damage in chosen]
    mutant.repairable = mutant.bench = False
    return any(done)


_SINGLE: tuple[Callable[[Mutant], bool], ...] = (
    *(flip_bits, flip_telling_bits, truncate, extend, lose_header, blank),
    *(save_wrong, of_another_nonce, swap_records, overwrite_record, record_of_another_run),
    *(half_of_another_record, drop_records, double_record),
)
DAMAGES: tuple[Callable[[Mutant], bool], ...] = (
    *_SINGLE,
    *(several, all_of_another_run),
    *(flip_in_memory, flip_what_ecc_repairs, flip_more_than_ecc_repairs, lose_zone_header),
    *(
        change_what_was_stored,
        read_in_part,
        lose_frame_header,
        tear_zone,
        blank_pages,
        zone_of_another_run,
        cut_region,
        wipe_region,
    ),
)


@dataclass
class Tally:
    """What came out: how many of each damage ended in which verdict, and each mistake."""

    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    false_pass: list[str] = field(default_factory=list)
    wrong_fail: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many damaged cycles were judged."""
        return sum(counts.total() for counts in self.verdicts.values())

    @property
    def mistakes(self) -> list[str]:
        """Everything that must not be."""
        return [*self.false_pass, *self.wrong_fail, *self.raised]


def mutants(count: int, seed: int) -> Iterator[tuple[str, Mutant]]:
    """Yield ``count`` damaged cycles, each of its own seed, with the damage's name."""
    made = number = 0
    while made < count:
        number += 1
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(NAMES)
        cycles = load(name)
        at = rng.randrange(len(cycles))
        if rng.random() < 0.5:
            other = cycles[1 - at]
        else:
            other = rng.choice(load(rng.choice([one for one in NAMES if one != name])))
        mutant = Mutant(cycles[at], other, rng)
        damage = DAMAGES[number % len(DAMAGES)]
        if damage(mutant):
            made += 1
            yield f"{damage.__name__} of {name} ({seed}/{number})", mutant


def tally(count: int, seed: int, *, progress: Callable[[int], None] = lambda _: None) -> Tally:
    """Judge ``count`` damaged cycles."""
    found = Tally()
    for number, (label, mutant) in enumerate(mutants(count, seed), 1):
        progress(number)
        try:
            result = mutant.judged()
        except Exception as error:  # what makes the judge raise is a mistake, whatever it is
            found.raised.append(f"{label}: {error!r}")
            continue
        kind = label.split(" ", 1)[0]
        found.verdicts.setdefault(kind, Counter())[result.verdict.value] += 1
        if result.verdict is Verdict.PASS and not mutant.right():
            found.false_pass.append(f"{label}: PASS: {result.why}")
        if mutant.repairable and result.verdict is not Verdict.PASS:
            found.wrong_fail.append(f"{label}: {result.verdict}: {result.why}")
        if mutant.bench and result.verdict is not Verdict.ERROR:
            found.wrong_fail.append(f"{label}: {result.verdict}: {result.why}")
    return found


def main() -> None:
    """Judge, print a table of damages and verdicts, and end with 1 on any mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()

    def progress(number: int) -> None:
        if sys.stderr.isatty() and number % 50 == 0:
            print(f"\r{number} of {arguments.count}", end="", file=sys.stderr)

    found = tally(arguments.count, arguments.seed, progress=progress)
    for kind, counts in sorted(found.verdicts.items()):
        numbers = "  ".join(f"{one.value} {counts[one.value]:5}" for one in Verdict)
        print(f"{kind:28} {numbers}")
    for mistake in found.mistakes:
        print(mistake)
    print(
        f"{found.count} damaged cycles: {len(found.false_pass)} false PASS, "
        f"{len(found.wrong_fail)} wrong FAIL, {len(found.raised)} errors; "
        f"{time.monotonic() - started:.0f} s"
    )
    sys.exit(1 if found.mistakes else 0)


if __name__ == "__main__":
    main()
