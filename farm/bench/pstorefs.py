"""pstore on the board: what lies there, read back over the console, and removed.

Files travel as chunks, several together, gzip-compressed (RFC 1952, whose CRC-32 and length prove
them), in base64 between two marks; what is damaged or lost is asked for again, chunk by chunk. The
board needs dd, base64, sha256sum and stat; without gzip it goes plain with its MD5.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from farm.bench.shell import PANIC_PATTERN, BoardShell
from farm.errors import BenchError, DeadlineError
from farm.model import Capture, OldRecord

FOLDER = "/sys/fs/pstore"
PREFIX = "panicdump-"
CHUNK_BYTES = 1 << 16
# What may have to be sent again when a transfer is damaged or the line is lost.
TRANSFER_BYTES = 1 << 17
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")

Progress = Callable[[int, int], None]

_ATTEMPTS = 4
_TRANSFERS_PER_SCRIPT = 64
# The kernel's first words: no base64 text looks like that.
_BOOT = rb"Booting Linux on physical CPU|Linux version [0-9]"
_STALL_S = 15.0
_SIZE_LIMIT_BYTES = 256 << 20

# `tool`: whether the board has gzip. `odd`: a name that nothing is done with but showing it. Sums
# are made of panicdump's records only: a console's file is large, and nobody fetches it.
LIST_SCRIPT = f"""\
cd {FOLDER} || exit 3
for f in *; do break; done
[ -e "$f" ] || grep -q ' {FOLDER} ' /proc/mounts || mount -t pstore pstore {FOLDER} 2>/dev/null
cd {FOLDER}
command -v gzip >/dev/null && echo tool gzip
set --
r=
for f in * .[!.]*; do
[ -f "$f" ] || continue
case $f in
[!A-Za-z0-9_]*|*[!A-Za-z0-9._-]*) echo odd $(printf %s "$f" | base64); continue;;
{PREFIX}*) r="$r $f";;
esac
set -- "$@" "$f"
done
[ $# = 0 ] && exit 0
stat -c 'size %s %n' "$@"
[ -z "$r" ] || sha256sum $r
"""

# One long line is a quarter faster than many, where base64 can do it.
_MARKS = """\
e() { base64 -w 0 2>/dev/null || base64; }
h() { printf '\\n%s-%s %s\\n' FIRST SECOND $1; }
t() { printf '%s+%s %s %s\\n' FIRST SECOND $1 $2; }
"""

# What one transfer holds: (number of the file, number of the chunk), several at once at first, for
# each transfer costs the board three processes.
_Transfer = list[tuple[int, int]]


@dataclass(frozen=True)
class BoardFile:
    """A file in pstore, as the board describes it; ``sha256`` is empty but for panicdump's."""

    name: str
    size_bytes: int
    sha256: str

    @property
    def chunks(self) -> int:
        """How many chunks it is read in."""
        return -(-self.size_bytes // CHUNK_BYTES)


@dataclass(frozen=True)
class Listing:
    """What lies in pstore; ``odd_names`` are shown, escaped, and otherwise left alone."""

    files: tuple[BoardFile, ...]
    odd_names: tuple[str, ...]
    has_gzip: bool

    def old_records(self) -> tuple[OldRecord, ...]:
        """The files as a manifest holds them."""
        return tuple(
            OldRecord(name=one.name, size_bytes=one.size_bytes, sha256=one.sha256)
            for one in self.files
        )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    return tuple(
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)
    )


def parse_listing(output: str) -> Listing:
    """Read what ``LIST_SCRIPT`` prints; raises BenchError(part="board") for anything else."""
    sizes: dict[str, int] = {}
    sums: dict[str, str] = {}
    odd: list[str] = []
    has_gzip = False
    for line in output.splitlines():
        if line == "tool gzip":
            has_gzip = True
        elif found := re.fullmatch(r"size ([0-9]{1,12}) (\S+)", line):
            sizes[found[2]] = int(found[1])
        elif found := re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)", line):
            sums[found[2]] = found[1]
        elif found := re.fullmatch(r"odd ([A-Za-z0-9+/= ]*)", line):
            try:
                raw = base64.b64decode(found[1].replace(" ", ""))
            except binascii.Error:
                raw = b"?"
            odd.append(repr(raw)[2:-1])
        elif line.strip():
            raise BenchError(f"the board's list of pstore says {line[:120]!r}", part="board")
    names = sorted(sizes, key=_natural)
    if any(not SAFE_NAME.fullmatch(name) or sizes[name] > _SIZE_LIMIT_BYTES for name in names):
        raise BenchError("the board's list of pstore holds an impossible file", part="board")
    if {name for name in sizes if name.startswith(PREFIX)} != sums.keys():
        raise BenchError("the board could not read every file in pstore", part="board")
    files = tuple(BoardFile(name, sizes[name], sums.get(name, "")) for name in names)
    return Listing(files, tuple(odd), has_gzip)


def list_pstore(shell: BoardShell, deadline_s: float = 20.0) -> Listing:
    """Ask the board what lies in pstore, in one round trip; raises BenchError."""
    return parse_listing(shell.run_script(LIST_SCRIPT, deadline_s, what="the listing of pstore"))


def unlink_records(shell: BoardShell, names: Sequence[str], deadline_s: float = 20.0) -> None:
    """Remove files from pstore; raises BenchError when one remains or has an unsafe name."""
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise BenchError(f"{name!r} is no name that a pstore file has", part="board")
    if not names:
        return
    left = shell.run_script(
        f"cd {FOLDER} || exit 3\nset -- {' '.join(names)}\n"
        'rm -f -- "$@"\nfor f; do [ ! -e "$f" ] || echo "$f remains"; done',
        deadline_s,
        what="removing records",
    )
    if left.strip():
        raise BenchError(f"pstore on the board: {left.strip()}", part="board")


@dataclass
class _Partial:
    """A file on its way; ``.part`` holds the chunks in ``done``, ``.part.json`` says which."""

    file: BoardFile
    target: Path
    done: set[int] = field(default_factory=set)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    @property
    def missing(self) -> list[int]:
        return [at for at in range(self.file.chunks) if at not in self.done]

    def chunk_size_bytes(self, chunk: int) -> int:
        return min(CHUNK_BYTES, self.file.size_bytes - chunk * CHUNK_BYTES)

    def identity(self) -> dict[str, object]:
        return {**asdict(self.file), "chunk_bytes": CHUNK_BYTES}

    def resume(self) -> None:
        """Take what an earlier try left, or what is already whole."""
        if self.target.exists() and _sha256(self.target) == self.file.sha256:
            self.done = set(range(self.file.chunks))
            return
        try:
            said = json.loads(self.note.read_text())
            done = said.pop("done")
        except (OSError, ValueError, KeyError):
            said, done = {}, []
        if said == self.identity() and self.part.exists():
            self.done = set(done)
        else:
            self.part.write_bytes(b"")

    def store(self, chunk: int, data: bytes) -> None:
        descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, data, chunk * CHUNK_BYTES)
        finally:
            os.close(descriptor)
        self.done.add(chunk)
        self.note.write_text(json.dumps({**self.identity(), "done": sorted(self.done)}))

    def restart(self) -> None:
        self.done.clear()
        self.part.write_bytes(b"")

    def finish(self) -> bool:
        """Give the file its name when its sum is right."""
        if self.missing:
            return False
        if not self.target.exists() or _sha256(self.target) != self.file.sha256:
            if not self.file.chunks:
                self.part.write_bytes(b"")
            if _sha256(self.part) != self.file.sha256:
                return False
            with self.part.open("rb") as opened:
                os.fsync(opened.fileno())
            self.part.replace(self.target)
        self.note.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)
        return True


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _decoded(text: bytes, check: bytes, has_gzip: bool) -> bytes | None:
    """One transfer's bytes, None when they are damaged."""
    try:
        data = base64.b64decode(b"".join(text.split()), validate=True)
        if has_gzip:
            unpacker = zlib.decompressobj(wbits=31)
            # What unpacks to more than it can hold is damaged or hostile.
            data = unpacker.decompress(data, TRANSFER_BYTES + 1)
            return data if unpacker.eof else None
    except (binascii.Error, ValueError, zlib.error):
        return None
    return data if hashlib.md5(data, usedforsecurity=False).hexdigest() == check.decode() else None


class _Reader:
    """Asks for chunks, a few times over, until none is missing."""

    def __init__(
        self,
        shell: BoardShell,
        files: list[_Partial],
        has_gzip: bool,
        progress: Progress | None,
        stall_s: float,
    ) -> None:
        self._shell = shell
        self._files = files
        self._has_gzip = has_gzip
        self._progress = progress
        self._stall_s = stall_s
        self._total = sum(one.file.size_bytes for one in files)

    def _tell(self) -> None:
        if self._progress is not None:
            done = sum(one.chunk_size_bytes(at) for one in self._files for at in one.done)
            self._progress(done, self._total)

    def read(self, left_s: Callable[[], float]) -> None:
        """Fetch what is missing; returns with what could not be had still missing."""
        stalled: DeadlineError | None = None
        self._tell()
        for attempt in range(_ATTEMPTS):
            transfers = self._transfers(together=attempt == 0)
            if not transfers:
                return
            try:
                for begin in range(0, len(transfers), _TRANSFERS_PER_SCRIPT):
                    self._fetch(transfers[begin : begin + _TRANSFERS_PER_SCRIPT], left_s)
                stalled = None
            except DeadlineError as error:
                if left_s() <= 0 or not self._shell.answers(min(5.0, self._stall_s)):
                    raise
                stalled = error
        if stalled is not None:
            raise stalled

    def _transfers(self, *, together: bool) -> list[_Transfer]:
        """What is missing; one bad file must not spoil others twice, hence not ``together``."""
        transfers: list[_Transfer] = []
        room = 0
        for number, one in enumerate(self._files):
            for at in one.missing:
                size = one.chunk_size_bytes(at)
                if together and size <= room:
                    transfers[-1].append((number, at))
                    room -= size
                else:
                    transfers.append([(number, at)])
                    room = TRANSFER_BYTES - size
        return transfers

    def _source(self, transfer: _Transfer) -> str:
        """The command that prints a transfer's bytes, with as few processes as may be."""
        commands: list[str] = []
        whole: list[str] = []
        for number, chunks in groupby(transfer, key=lambda piece: piece[0]):
            file = self._files[number].file
            wanted = [at for _, at in chunks]
            if len(wanted) == file.chunks:
                whole.append(file.name)
                continue
            commands += [f"cat {' '.join(whole)}"] if whole else []
            whole = []
            commands += [f"dd if={file.name} bs={CHUNK_BYTES} skip={at} count=1" for at in wanted]
        commands += [f"cat {' '.join(whole)}"] if whole else []
        return commands[0] if len(commands) == 1 else f"{{ {'; '.join(commands)}; }}"

    def _fetch(self, transfers: list[_Transfer], left_s: Callable[[], float]) -> None:
        first, second = secrets.token_hex(4), secrets.token_hex(4)
        lines = []
        for index, transfer in enumerate(transfers):
            source = f"{self._source(transfer)} 2>/dev/null"
            if self._has_gzip:
                lines.append(f"h {index}; {source} | gzip -c | e; t {index} -")
            else:
                lines.append(f"h {index}; {source} | e; t {index} $({source} | md5sum)")
        marks = _MARKS.replace("FIRST", first).replace("SECOND", second)
        end = self._shell.start(f"{marks}cd {FOLDER} || exit 3\n" + "\n".join(lines))
        begin = re.compile(rf"{first}-{second} ([0-9]+)\r?\n".encode())
        done = rf"{first}\+{second} ([0-9]+) (-|[0-9a-f]{{32}})\r?\n"
        while True:
            seen = self._shell.console.wait_for(
                [done, end, PANIC_PATTERN, _BOOT],
                left_s(),
                "the next chunk of a record",
                stall_s=self._stall_s,
            )
            if seen.index == 2:
                raise BenchError("the board panicked while its records were read", part="board")
            if seen.index == 3:
                raise BenchError(
                    "the board reset while its records were read",
                    part="board",
                    next_step="Check its power; see console.log.",
                )
            if seen.index == 1:
                return
            index = int(seen.groups[0] or b"0")
            starts = list(begin.finditer(seen.before))
            if index < len(transfers) and starts and int(starts[-1][1]) == index:
                text = seen.before[starts[-1].end() :]
                self._take(transfers[index], _decoded(text, seen.groups[1] or b"", self._has_gzip))

    def _take(self, transfer: _Transfer, data: bytes | None) -> None:
        """Store a transfer's bytes if they are as many as they must be."""
        sizes = [self._files[number].chunk_size_bytes(at) for number, at in transfer]
        if data is None or len(data) != sum(sizes):
            return
        begin = 0
        for (number, at), size in zip(transfer, sizes, strict=True):
            one = self._files[number]
            one.store(at, data[begin : begin + size])
            # A file that is whole is kept as such whatever happens to the next one.
            one.finish()
            begin += size
        self._tell()


def collect_pstorefs(
    shell: BoardShell,
    cycle_folder: Path,
    *,
    deadline_s: float,
    into: str = "captures/pstorefs",
    prefix: str = PREFIX,
    progress: Progress | None = None,
    captures: list[Capture] | None = None,
    listing: Listing | None = None,
    stall_s: float = _STALL_S,
) -> tuple[Capture, ...]:
    """Read panicdump's files in pstore, whose names begin with ``prefix``, into ``cycle_folder``.

    Each becomes ``<into>/NNNN.bin``; called again after an error it asks only for what is missing.
    A file that cannot be had whole is a Capture that is not complete, with a note. ``progress``
    gets (bytes done, bytes in all); ``captures`` is extended by what there is, even on an error;
    ``listing`` spares asking what there is.
    Raises BenchError (part="serial", "board", "disk").
    """
    clock = _Clock(deadline_s)
    if listing is None:
        listing = list_pstore(shell, min(deadline_s, 60.0))
    chosen = [one for one in listing.files if one.sha256 and one.name.startswith(prefix)]
    folder = cycle_folder / into
    found: list[Capture] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [_Partial(one, folder / f"{number:04d}.bin") for number, one in enumerate(chosen)]
        for partial in files:
            partial.resume()
        reader = _Reader(shell, files, listing.has_gzip, progress, stall_s)
        try:
            _read_whole(reader, files, clock)
            if files and not any(one.finish() for one in files):
                _check_still_there(shell, files, clock)
        finally:
            found += [_capture(one, f"{into}/{one.target.name}") for one in files]
            found += [
                _odd_capture(name, folder / f"{number:04d}.bin", into)
                for number, name in enumerate(listing.odd_names, start=len(files))
            ]
            if captures is not None:
                captures += found
    except OSError as error:
        raise BenchError(
            f"cannot write in {folder}: {error.strerror or error}",
            part="disk",
            next_step="Make room, or choose another folder; what was read so far is kept.",
        ) from error
    return tuple(found)


def _check_still_there(shell: BoardShell, files: list[_Partial], clock: _Clock) -> None:
    """Raise BenchError when the files that were listed are no longer in pstore."""
    listed = {one.name for one in list_pstore(shell, max(1.0, clock.left_s())).files}
    if not any(one.file.name in listed for one in files):
        raise BenchError(
            "the records that were listed are no longer in pstore: "
            "the board was reset or lost its power while they were read",
            part="board",
            next_step="Check the power and the console's recording; then run again.",
        )


def _read_whole(reader: _Reader, files: list[_Partial], clock: _Clock) -> None:
    """Read all files; one whose sum is wrong although no chunk is missing is read once more."""
    reader.read(clock.left_s)
    again = [one for one in files if not one.finish() and not one.missing]
    if again:
        for one in again:
            one.restart()
        reader.read(clock.left_s)


class _Clock:
    """Counts down from a deadline."""

    def __init__(self, deadline_s: float) -> None:
        self._end = time.monotonic() + deadline_s

    def left_s(self) -> float:
        return self._end - time.monotonic()


def _odd_capture(name: str, target: Path, into: str) -> Capture:
    """An empty file that stands for one that is not asked for."""
    target.write_bytes(b"")
    return Capture(
        channel="pstorefs",
        board_name=name,
        path=f"{into}/{target.name}",
        size_bytes=0,
        sha256=hashlib.sha256(b"").hexdigest(),
        complete=False,
        note="pstore does not give such names to its files; it was left alone",
    )


def _capture(partial: _Partial, path: str) -> Capture:
    file = partial.file
    if partial.finish():
        return Capture(
            channel="pstorefs",
            board_name=file.name,
            path=path,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
    note = (
        f"{len(partial.missing)} of {file.chunks} chunks did not arrive"
        if partial.missing
        else "its bytes differ from the board's sum, twice"
    )
    return Capture(
        channel="pstorefs",
        board_name=file.name,
        path=path + ".part",
        size_bytes=partial.part.stat().st_size,
        sha256=_sha256(partial.part),
        complete=False,
        note=note,
    )
