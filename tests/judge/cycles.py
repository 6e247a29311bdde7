"""A cycle made from values: three devices, what the board left of them, and the account of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from farm.formats.encode import (
    NewContentsEntry,
    NewRecord,
    NewRegion,
    encode_contents,
    encode_record,
)
from farm.formats.pattern import expected_bytes
from farm.judge import judge
from farm.model import (
    Capture,
    ChannelRead,
    CycleInput,
    CycleVerdict,
    DeviceVerdict,
    Finding,
    FindingKind,
    Manifest,
    ManifestDevice,
    ManifestRegion,
    PanicAccount,
    Policy,
    RegionKind,
)

BOOT = uuid.UUID("8c1f5f0e-6f0a-4c7e-9d55-0a2f7a9b3c11")
OTHER_BOOT = uuid.UUID("17e0a0f1-9085-43b1-622a-f5d08564c3ee")
NONCE = 0x0123_4567_89AB_CDEF
SEQUENCE = 4
KIND_NUMBERS = {RegionKind.BUFFER: 1, RegionKind.REGISTERS: 2, RegionKind.CALLBACK: 3}
PREFIXES = {"b": RegionKind.BUFFER, "r": RegionKind.REGISTERS, "c": RegionKind.CALLBACK}
NOTICE = "\nECC: {} Corrected bytes, {} unrecoverable blocks\n"

Read = Callable[[Capture], bytes]


def device(
    device_id: int, name: str, driver: str, layout: str, *, needed_bytes: int = 8192
) -> ManifestDevice:
    """A registered device; ``layout`` is the sample module's: ``b16+r64+c100``."""
    regions = []
    for index, part in enumerate(layout.split("+")):
        kind = PREFIXES[part[0]]
        registers = kind is RegionKind.REGISTERS
        callback = kind is RegionKind.CALLBACK
        regions.append(
            ManifestRegion(
                index=index,
                name=f"{kind.value[:3]}{index}",
                kind=kind,
                va=0 if callback else 0xFFFF_8000_0000_0000 + device_id * 0x10000 + index * 0x1000,
                pa=None if callback else 0x4000_0000 + device_id * 0x10000 + index * 0x1000,
                size_bytes=int(part[1:]),
                width_bytes=4 if registers else 0,
                stride_bytes=4 if registers else 0,
            )
        )
    return ManifestDevice(
        id=device_id,
        name=name,
        driver=driver,
        priority=0,
        needed_bytes=needed_bytes,
        regions=tuple(regions),
    )


def devices() -> list[ManifestDevice]:
    return [
        device(1, "panicdump-sample.0", "panicdump-sample", "b64+r64+c100"),
        device(2, "panicdump-sample.1", "panicdump-sample", "b256"),
        device(7, "ae94000.dsi.0", "panel-simple", "b40+r16"),
    ]


def content(owner: ManifestDevice, region: ManifestRegion) -> bytes:
    """What the region held at the panic; only a sample device's follows from the nonce."""
    if owner.driver != "panicdump-sample":
        return expected_bytes(99, owner.id, region.index, region.size_bytes)
    number = int(owner.name.rpartition(".")[2])
    return expected_bytes(NONCE, number, region.index, region.size_bytes)


@dataclass
class Scene:
    """One cycle; change what is wrong with it, then `judge`."""

    form: str = "elf"
    devices: list[ManifestDevice] = field(default_factory=devices)
    records: dict[int, bytes | None] = field(default_factory=dict)
    outcomes: dict[int, tuple[int, int]] = field(default_factory=dict)
    contents: bytes | None = None
    contents_options: dict[str, Any] = field(default_factory=dict)
    without_contents: bool = False
    unlisted: set[int] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    captures: dict[str, dict[str, Any]] = field(default_factory=dict)
    notice: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    panic: dict[str, Any] = field(default_factory=dict)

    def device(self, device_id: int) -> ManifestDevice:
        return next(one for one in self.devices if one.id == device_id)

    def regions(self, device_id: int) -> list[NewRegion]:
        """The device's regions as an honest kernel saves them."""
        owner = self.device(device_id)
        return [
            NewRegion(
                name=region.name,
                data=content(owner, region),
                kind=KIND_NUMBERS[region.kind],
                va=region.va,
                pa=region.pa,
                width_bytes=region.width_bytes,
                stride_bytes=region.stride_bytes,
            )
            for region in owner.regions
        ]

    def record(
        self, device_id: int, regions: list[NewRegion] | None = None, /, **changes: Any
    ) -> bytes:
        """The device's record; ``changes`` are those of its header."""
        owner = self.device(device_id)
        values: dict[str, Any] = {
            "driver": owner.driver,
            "device": owner.name,
            "regions": self.regions(device_id) if regions is None else regions,
            "boot_id": BOOT,
            "sequence": SEQUENCE + 1,
            "device_id": device_id,
            "index": self.devices.index(owner) + 1,
            **changes,
        }
        return encode_record(NewRecord(**values), self.form)

    def contents_record(self, entries: list[NewContentsEntry], **changes: Any) -> bytes:
        region = NewRegion(
            name="contents", data=encode_contents(entries, **self.contents_options), kind=3
        )
        values: dict[str, Any] = {
            "driver": "panicdump",
            "device": "contents",
            "kind": 1,
            "device_id": 0,
            "index": 0,
            "boot_id": BOOT,
            "sequence": SEQUENCE + 1,
            "regions": [region],
            **changes,
        }
        return encode_record(NewRecord(**values), self.form)

    def all_files(self) -> dict[str, bytes]:
        """Every file of pstorefs by its name."""
        found = {
            one.id: self.records[one.id] if one.id in self.records else self.record(one.id)
            for one in self.devices
        }
        entries = []
        for index, one in enumerate(self.devices, 1):
            if one.id in self.unlisted:
                continue
            outcome, error = self.outcomes.get(one.id, (0, 0))
            saved = outcome in (0, 1, 4)
            data = found[one.id]
            entries.append(
                NewContentsEntry(
                    device_id=one.id,
                    driver=one.driver,
                    device=one.name,
                    outcome=outcome,
                    error=error,
                    index=index if saved else None,
                    needed_bytes=one.needed_bytes,
                    saved_bytes=len(data or self.record(one.id)) if saved else 0,
                )
            )
        files = {}
        if not self.without_contents:
            files["panicdump-ramoops-0"] = self.contents or self.contents_record(entries)
        for index, one in enumerate(self.devices, 1):
            if (data := found[one.id]) is not None:
                files[f"panicdump-ramoops-{index}"] = data
        notice = self.notice.encode()
        return {name: data + notice for name, data in {**files, **self.files}.items()}

    def prepared(self, **changes: Any) -> tuple[CycleInput, Read]:
        """The cycle's input and what reads its captures."""
        files = self.all_files()
        captures = []
        by_path = {}
        for number, (name, data) in enumerate(files.items()):
            path = f"captures/pstorefs/{number:04d}.bin"
            by_path[path] = data
            values = {
                "channel": "pstorefs",
                "board_name": name,
                "path": path,
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                **self.captures.get(name, {}),
            }
            captures.append(Capture(**values))
        manifest = {
            "board": "board",
            "scenario": "sysrq-c",
            "nonce": NONCE,
            "boot_id": str(BOOT),
            "sequence": SEQUENCE,
            "enabled": True,
            "format": self.form,
            "on_overflow": "stop",
            "area_bytes": 262144,
            "capacity_bytes": 131072,
            "needed_bytes": 32768,
            "backend": "ramoops",
            "kernel_release": "6.12.90",
            "build_id": "00" * 20,
            "cmdline": "console=ttyAMA0",
            "ramoops": None,
            "devices": tuple(self.devices),
            **self.manifest,
        }
        panic = {
            "trigger": "sysrq c",
            "panic_line": "Kernel panic - not syncing: sysrq triggered crash",
            "signature_found": True,
            "panic_console_lines": ("sysrq: Trigger a crash",),
            "reset": "warm",
            "boot_id_after": str(OTHER_BOOT),
            "release_after": "6.12.90",
            "build_id_after": "00" * 20,
            **self.panic,
        }
        values = {
            "board": "board",
            "virtual": True,
            "scenario": "sysrq-c",
            "repeat": 1,
            "manifest": Manifest(**manifest),
            "panic": PanicAccount(**panic),
            "captures": tuple(captures),
            "channels": (
                ChannelRead(channel="pstorefs", wanted_bytes=0, received_bytes=0, seconds=0),
            ),
            "policy": Policy(),
            **changes,
        }
        return CycleInput(**values), lambda capture: by_path[capture.path]

    def judge(self, **changes: Any) -> CycleVerdict:
        return judge(*self.prepared(**changes))


def row(result: CycleVerdict, name: str) -> DeviceVerdict:
    """The one line of the table that is of this device."""
    (found,) = [one for one in result.devices if one.device == name]
    return found


def findings(result: CycleVerdict, kind: FindingKind) -> list[Finding]:
    return [one for one in result.findings if one.kind is kind]


def only(result: CycleVerdict, kind: FindingKind) -> Finding:
    """The one finding of this kind."""
    (found,) = findings(result, kind)
    return found


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
