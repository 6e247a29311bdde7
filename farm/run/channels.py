"""The channels of a cycle: which there are, when each can read, and reading them.

Crash mode comes first, between the panic and the next boot: `sahara`, `ramdump`. Then the shell,
`pstorefs`. Then, by warm reboots which keep the memory, the bootloader and the boot ROM:
`fastboot`, `firehose`. What was read is stored before anything is decoded.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from farm.bench.environment import Bench
from farm.bench.strategy import Status
from farm.errors import BenchError, UsageError
from farm.formats.cut_table import cut_table
from farm.judge.channels import TABLE, zone_span
from farm.judge.memory import static_spans
from farm.model import Capture, ChannelRead, Manifest, Ramoops

PSTOREFS = "pstorefs"
IN_CRASH_MODE = ("sahara", "ramdump")
AFTER_SHELL = ("fastboot", "firehose")
NAMES = (PSTOREFS, *IN_CRASH_MODE, *AFTER_SHELL)
# What a board's environment must list among its features for a channel.
_FEATURE = {"sahara": "sahara", "ramdump": "sahara", "fastboot": "fastboot", "firehose": "firehose"}
_COPY_BYTES = 1 << 20

Say = Callable[[str], None]


def parse_channels(text: str) -> tuple[str, ...]:
    """The channels of ``--channel a,b,c``, in the order they are read; raises UsageError."""
    wanted = [one.strip() for one in text.split(",") if one.strip()]
    unknown = [one for one in wanted if one not in NAMES]
    if unknown or not wanted:
        raise UsageError(
            f"--channel: there is no channel {unknown[0]!r}"
            if unknown
            else "--channel: none given",
            f"The channels are: {', '.join(NAMES)}.",
        )
    order = (*IN_CRASH_MODE, PSTOREFS, *AFTER_SHELL)
    return tuple(one for one in order if one in wanted)


def features_needed(channels: tuple[str, ...]) -> frozenset[str]:
    """The features that the channels need of a board."""
    return frozenset(_FEATURE[one] for one in channels if one in _FEATURE)


def needs_crash_mode(channels: tuple[str, ...]) -> bool:
    """Whether the board has to stop in crash mode after the panic."""
    return any(one in IN_CRASH_MODE for one in channels)


def _region(manifest: Manifest) -> Ramoops:
    if manifest.ramoops is None:
        raise BenchError(
            "the kernel has no ramoops region, which raw channels read",
            part="board",
            next_step="Use --channel pstorefs.",
        )
    return manifest.ramoops


def _panicdump_span(ramoops: Ramoops) -> tuple[int, int]:
    """(physical address, size) of the panicdump zone: all that a slow channel reads."""
    start, size, _ = zone_span(ramoops)
    if not size:
        raise BenchError("ramoops has no panicdump zone", part="board")
    return start, size


class ChannelReader:
    """Reads raw channels of one cycle into its folder, filling ``captures`` and ``reads``."""

    def __init__(
        self,
        bench: Bench,
        folder: Path,
        manifest: Manifest,
        captures: list[Capture],
        reads: list[ChannelRead],
        say: Say,
    ) -> None:
        self._bench = bench
        self._folder = folder
        self._region = _region(manifest)
        self._spans = static_spans(manifest)
        self._captures = captures
        self._reads = reads
        self._say = say

    def _target(self, channel: str) -> Path:
        folder = self._folder / "captures" / channel
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "ramoops.bin"

    def _store(
        self, channel: str, target: Path, paddr: int, received_bytes: int, seconds: float
    ) -> None:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = target.stat().st_size
        self._captures.append(
            Capture(
                channel=channel,
                board_name=f"memory {paddr:#x}",
                path=target.relative_to(self._folder).as_posix(),
                size_bytes=size,
                sha256=digest,
                paddr=paddr,
            )
        )
        self._reads.append(
            ChannelRead(
                channel=channel,
                wanted_bytes=size,
                received_bytes=received_bytes,
                seconds=round(seconds, 3),
            )
        )

    def _memory_target(self, channel: str, paddr: int) -> Path:
        return self._target(channel).with_name(f"memory-{paddr:x}.bin")

    def _store_memory(self, channel: str, target: Path, paddr: int) -> None:
        """Note memory that records are held against."""
        self._captures.append(
            Capture(
                channel=channel,
                board_name=f"memory {paddr:#x}",
                path=target.relative_to(self._folder).as_posix(),
                size_bytes=target.stat().st_size,
                sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
                paddr=paddr,
                ground_truth=True,
            )
        )

    def in_crash_mode(self, channels: tuple[str, ...]) -> None:
        """Read what crash mode offers, and leave it; raises BenchError."""
        strategy = self._bench.strategy
        strategy.transition(Status.crash)
        crash = strategy.driver("crash")
        if "sahara" in channels:
            self._say("sahara")
            target = self._target("sahara")
            got = crash.read(
                self._region.mem_address,
                self._region.mem_size_bytes,
                target,
                strategy.progress,
            )
            self._store("sahara", target, self._region.mem_address, got.received_bytes, got.seconds)
            for paddr, size in self._spans:
                target = self._memory_target("sahara", paddr)
                crash.read(paddr, size, target)
                self._store_memory("sahara", target, paddr)
        if "ramdump" in channels:
            self._say("ramdump")
            self._ramdump(strategy.dump(self._folder / "captures" / "ramdump"))
        crash.reset()
        strategy.force(Status.unknown)

    def _ramdump(self, said: dict[str, object]) -> None:
        """Take the region out of a full dump, whose files stay as they are."""
        files = said["files"]
        assert isinstance(files, list)
        folder = self._folder / "captures" / "ramdump"
        start, size = self._region.mem_address, self._region.mem_size_bytes
        for one in files:
            self._captures.append(
                Capture(
                    channel="ramdump",
                    board_name=str(one["board_name"]),
                    path=f"captures/ramdump/{one['file']}",
                    size_bytes=one["length_bytes"],
                    sha256=one["sha256"],
                )
            )
            for paddr, length in self._spans:
                offset = paddr - one["base"]
                if offset >= 0 and offset + length <= one["length_bytes"]:
                    target = self._memory_target("ramdump", paddr)
                    with (folder / one["file"]).open("rb") as whole:
                        whole.seek(offset)
                        target.write_bytes(whole.read(length))
                    self._store_memory("ramdump", target, paddr)
            offset = start - one["base"]
            if offset >= 0 and offset + size <= one["length_bytes"]:
                target = self._target("ramdump")
                with (folder / one["file"]).open("rb") as whole, target.open("wb") as part:
                    whole.seek(offset)
                    part.write(whole.read(size))
                received, seconds = said["received_bytes"], said["seconds"]
                assert isinstance(received, int)
                assert isinstance(seconds, float)
                self._store("ramdump", target, start, received, seconds)

    def after_shell(self, channels: tuple[str, ...]) -> None:
        """Read what bootloader and boot ROM offer, by warm reboots; raises BenchError."""
        strategy = self._bench.strategy
        if "fastboot" in channels:
            self._say("fastboot")
            strategy.transition(Status.fastboot)
            target, before = self._target("fastboot"), time.monotonic()
            fastboot = strategy.driver("fastboot")
            start, size = self._region.mem_address, self._region.mem_size_bytes
            if fastboot.reads_any:
                start, size = _panicdump_span(self._region)
            fastboot.read(start, size, target, strategy.progress)
            received = target.stat().st_size
            self._store("fastboot", target, start, received, time.monotonic() - before)
        if "firehose" in channels:
            self._say("firehose")
            strategy.transition(Status.edl)
            start, size = _panicdump_span(self._region)
            target = self._target("firehose")
            got = strategy.driver("edl").peek(start, size, target, strategy.progress)
            self._store("firehose", target, start, got.received_bytes, got.seconds)
        strategy.transition(Status.shell)


def read_table(
    bench: Bench, folder: Path, captures: list[Capture], reads: list[ChannelRead]
) -> None:
    """Dump the memory in crash mode, keep panicdump's table of it, and leave crash mode.

    A memory without a table gives no capture. Raises BenchError.
    """
    strategy = bench.strategy
    strategy.transition(Status.crash)
    crash = strategy.driver("crash")
    whole = folder / "memory"
    said = crash.dump(whole)
    crash.reset()
    strategy.force(Status.unknown)
    try:
        for one in said["files"]:
            with (whole / one["file"]).open("rb") as file:
                found = cut_table(file.fileno(), one["base"])
            if found is None:
                continue
            target = folder / "captures" / TABLE / "table.bin"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(found.data)
            captures.append(
                Capture(
                    channel=TABLE,
                    board_name=f"memory {found.paddr:#x}",
                    path=target.relative_to(folder).as_posix(),
                    size_bytes=len(found.data),
                    sha256=hashlib.sha256(found.data).hexdigest(),
                    paddr=found.paddr,
                )
            )
            break
    finally:
        # Half a gigabyte for some pages of it.
        shutil.rmtree(whole)
    received, seconds = said["received_bytes"], said["seconds"]
    reads.append(
        ChannelRead(channel=TABLE, wanted_bytes=received, received_bytes=received, seconds=seconds)
    )
