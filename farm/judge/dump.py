"""The capture files of one cycle, decoded and told apart: of this panic, old, foreign, cut short.

Source: Documentation/admin-guide/panicdump.rst. Decoding itself is `farm.formats`; this module
only decides which panic a file belongs to and which registered device it is of.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from farm.errors import FarmError, FormatError
from farm.formats.contents import Contents, decode_contents
from farm.formats.record import Record, RecordKind, RecordState, decode_record
from farm.judge.names import DEVICE_NAME_BYTES, DRIVER_NAME_BYTES, same_name
from farm.model import Capture, Manifest, ManifestDevice

__all__ = ["Dump", "DumpFile", "Foreign", "Incomplete", "read_dump", "same_names"]

_FILE_PREFIX = "panicdump-"
# Two random boot ids differ in nearly all 16 bytes, a damaged one in a few.
_OTHER_BOOT_BYTES = 8


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A capture that is a record. ``contents`` is the table of an intact contents record."""

    capture: Capture
    record: Record
    contents: Contents | None = None

    @property
    def record_bytes(self) -> int:
        """Size of the record as it lies in pstore."""
        if self.record.state is RecordState.TORN:
            # The size in a torn record's header is a claim, not a measure.
            return self.capture.size_bytes - len(self.record.trailing)
        return self.record.record_size_bytes

    @property
    def surplus_bytes(self) -> int:
        """Bytes between the record's end and the notice that ramoops appends, if there is one."""
        trailing = self.record.trailing
        if self.record.notice is None:
            return len(trailing)
        return max(0, trailing.rfind(b"\nECC: "))


@dataclass(frozen=True, slots=True)
class Foreign:
    """A capture with a panicdump name that is no record; ``offset`` in bytes."""

    capture: Capture
    offset: int
    message: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A capture that did not come off the board whole; ``device_id`` where its start tells."""

    capture: Capture
    message: str
    device_id: int | None = None
    is_contents: bool = False


@dataclass(frozen=True, slots=True)
class Dump:
    """All capture files, each in exactly one of the lists; ``devices`` is by registration id."""

    contents: DumpFile | None = None
    devices: dict[int, DumpFile] = field(default_factory=dict)
    unexpected: tuple[DumpFile, ...] = ()
    stale: tuple[DumpFile, ...] = ()
    ahead: tuple[DumpFile, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()

    @property
    def fresh(self) -> tuple[DumpFile, ...]:
        """Every record of this panic."""
        first = () if self.contents is None else (self.contents,)
        return (*first, *self.devices.values(), *self.unexpected)


def _differing_bytes(boot_id: str, other: str) -> int:
    try:
        pair = zip(uuid.UUID(boot_id).bytes, uuid.UUID(other).bytes, strict=True)
    except ValueError:
        return 16
    return sum(a != b for a, b in pair)


def _age(file: DumpFile, manifest: Manifest) -> int:
    """Tell a record's panic: negative before this one, 0 this one, positive a later one.

    A damaged header is no witness, so a damaged record counts as old only when its boot id is
    another one altogether.
    """
    if any(file.capture.sha256 == old.sha256 for old in manifest.old_records):
        return -1
    record = file.record
    if manifest.next_boot:
        # The panic's own boot left no other witness than its records.
        return -1 if record.boot_id == manifest.boot_id.lower() else record.sequence - 1
    wrong = _differing_bytes(record.boot_id, manifest.boot_id)
    if wrong:
        return -1 if record.state is RecordState.INTACT or wrong > _OTHER_BOOT_BYTES else 0
    if record.state is not RecordState.INTACT:
        return 0
    return record.sequence - (manifest.sequence + 1)


def same_names(device: ManifestDevice, record: Record) -> bool:
    """Whether a record carries a registered device's driver and device name."""
    return same_name(
        device.driver, record.driver, record.driver_raw, DRIVER_NAME_BYTES
    ) and same_name(device.name, record.device, record.device_raw, DEVICE_NAME_BYTES)


def owner(record: Record, devices: Iterable[ManifestDevice]) -> ManifestDevice | None:
    """Find the registered device a record is of: by id; by names when it is damaged or old."""
    candidates = tuple(devices)
    by_id = next((device for device in candidates if device.id == record.device_id), None)
    if by_id is not None and (record.state is RecordState.INTACT or same_names(by_id, record)):
        return by_id
    by_names = next((device for device in candidates if same_names(device, record)), None)
    if by_names is not None and record.state is not RecordState.INTACT:
        return by_names
    return by_id


def _decoded(capture: Capture, data: bytes) -> DumpFile | Foreign:
    try:
        record = decode_record(data)
    except FormatError as error:
        return Foreign(capture, error.offset, error.message)
    contents = None
    if record.kind is RecordKind.CONTENTS and record.state is RecordState.INTACT:
        try:
            contents = decode_contents(record.regions[0].data if record.regions else b"")
        except FormatError as error:
            return Foreign(capture, error.offset, f"contents record: {error.message}")
    return DumpFile(capture, record, contents)


def _cut_short(
    capture: Capture, data: bytes, message: str, devices: tuple[ManifestDevice, ...]
) -> Incomplete:
    """Say what an incomplete capture was going to be; nothing else of it is judged."""
    try:
        record = decode_record(data)
    except FormatError:
        return Incomplete(capture, message)
    if record.kind is RecordKind.CONTENTS:
        return Incomplete(capture, message, is_contents=True)
    device = owner(record, devices)
    return Incomplete(capture, message, device_id=None if device is None else device.id)


def read_dump(
    captures: Iterable[Capture],
    manifest: Manifest | None,
    read_capture: Callable[[Capture], bytes],
) -> Dump:
    """Read and sort all captures that carry a panicdump file.

    ``read_capture`` may raise FarmError or OSError; the capture then counts as incomplete. Without
    a manifest everything that decodes is unexpected.
    """
    devices = () if manifest is None else manifest.devices
    files: list[DumpFile] = []
    foreign: list[Foreign] = []
    incomplete: list[Incomplete] = []
    for capture in captures:
        if not capture.board_name.startswith(_FILE_PREFIX):
            continue
        try:
            data = read_capture(capture)
        except (FarmError, OSError) as error:
            reason = error.message if isinstance(error, FarmError) else error.strerror or str(error)
            incomplete.append(Incomplete(capture, reason))
            continue
        if not capture.complete or len(data) != capture.size_bytes:
            message = capture.note or f"{len(data)} of {capture.size_bytes} bytes are there"
            incomplete.append(_cut_short(capture, data, message, devices))
            continue
        decoded = _decoded(capture, data)
        if isinstance(decoded, Foreign):
            foreign.append(decoded)
        else:
            files.append(decoded)
    return _sorted(files, foreign, incomplete, manifest)


def _sorted(
    files: list[DumpFile],
    foreign: list[Foreign],
    incomplete: list[Incomplete],
    manifest: Manifest | None,
) -> Dump:
    contents: DumpFile | None = None
    found: dict[int, DumpFile] = {}
    unexpected: list[DumpFile] = []
    stale: list[DumpFile] = []
    ahead: list[DumpFile] = []
    seen: set[tuple[str, str]] = set()
    # An intact record claims its place before a damaged one, whatever the order of files.
    for file in sorted(files, key=lambda file: file.record.state is not RecordState.INTACT):
        same_in_other_channel = any(
            sha == file.capture.sha256 and channel != file.capture.channel for sha, channel in seen
        )
        seen.add((file.capture.sha256, file.capture.channel))
        if same_in_other_channel:
            continue
        age = 0 if manifest is None else _age(file, manifest)
        if age < 0:
            stale.append(file)
        elif age > 0:
            ahead.append(file)
        elif file.record.kind is RecordKind.CONTENTS and contents is None:
            contents = file
        else:
            device = None
            damaged = file.record.state is not RecordState.INTACT
            if manifest is not None and (damaged or file.record.kind is RecordKind.DEVICE):
                free = tuple(device for device in manifest.devices if device.id not in found)
                device = owner(file.record, free)
            if device is None:
                unexpected.append(file)
            else:
                found[device.id] = file
    return Dump(
        contents,
        found,
        tuple(unexpected),
        tuple(stale),
        tuple(ahead),
        tuple(foreign),
        tuple(incomplete),
    )
