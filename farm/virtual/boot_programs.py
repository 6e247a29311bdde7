"""What runs on the chip while no kernel does: boot ROM, crash mode, bootloader; and the disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import UsageError
from farm.virtual.board_memory import BoardMemory
from farm.virtual.bootimage import BadImageError, factory_image, parse_boot_image
from farm.virtual.disk import Disk
from farm.virtual.fastboot_device import Fastboot, Leave, Ramoops
from farm.virtual.fastboot_links import TcpPort, serve_usb
from farm.virtual.firehose_device import FirehoseDevice
from farm.virtual.imem import Stage
from farm.virtual.options import BoardOptions
from farm.virtual.personality import Personality
from farm.virtual.sahara_device import ChipIdentity, SaharaDevice
from farm.virtual.usb_bus import BusPort, usb_serial
from farm.virtual.usb_device import Device, Face
from farm.virtual.usb_faults import UsbFaults
from farm.virtual.usbfs import Plugged

HARDWARE_ID = 0x000C_C0E1_0000_0000
_REPLUG_S = 0.3
_SAHARA_PRODUCT = {Stage.EDL: 0x9008, Stage.CRASH: 0x900E}

OnLeave = Callable[[Leave, bytes], None]


@dataclass(frozen=True)
class Loaded:
    """What a bootloader has taken out of a boot image, as files for QEMU."""

    slot: str
    kernel: Path
    initrd: Path
    dtb: Path
    cmdline: str


class BootPrograms:
    """One board's programs; ``on_leave`` is called, from a thread, when one of them ends."""

    def __init__(self, options: BoardOptions, folder: Path, tcp: TcpPort, on_leave: OnLeave):
        self._options = options
        self._folder = folder
        self._tcp = tcp
        self._on_leave = on_leave
        self.faults = UsbFaults()
        self.serial = usb_serial(options.name)
        self.bus = BusPort(options.name)
        self.disk = Disk(folder / "disk")
        self._plugged: Plugged | None = None
        self._program: Callable[[Device], None] | None = None
        self._memory: BoardMemory | None = None
        self._stage = Stage.KERNEL
        self._loaded: tuple[object, Loaded] | None = None
        self._lock = threading.RLock()

    def make_disk(self) -> None:
        """The disk as the factory delivers it, with the images of the options in slot a."""
        self.disk.create()
        image = factory_image(
            self._options.kernel.read_bytes(),
            self._options.initrd.read_bytes(),
            self._options.dtb.read_bytes(),
        )
        boot = self.disk.partition("boot_a")
        assert boot is not None
        if len(image) > boot.size_bytes:
            raise UsageError(f"the images have {len(image)} bytes, a slot {boot.size_bytes}")
        self.disk.write(boot.first * 4096, image)

    # -- the bootloader's choice

    def load(self) -> Loaded | None:
        """What the active slot boots, given up if it cannot; None when no slot does."""
        for _ in range(2):
            slot = self.disk.active_slot()
            boot = None if slot is None else self.disk.partition(f"boot_{slot}")
            if slot is None or boot is None or boot.unbootable:
                return None
            key = (slot, self.disk.writes)
            if self._loaded is not None and self._loaded[0] == key:
                return self._loaded[1]
            try:
                loaded = self.load_image(
                    self.disk.read(boot.first * 4096, boot.size_bytes), slot=slot
                )
            except BadImageError:
                self.disk.give_up(slot)
                other = "b" if slot == "a" else "a"
                second = self.disk.partition(f"boot_{other}")
                if second is None or second.unbootable:
                    return None
                self.disk.set_active(other)
                continue
            self._loaded = (key, loaded)
            return loaded
        return None

    def load_image(self, data: bytes, *, slot: str) -> Loaded:
        """Unpack a boot image; raises BadImageError."""
        image = parse_boot_image(data)
        files = {"kernel": image.kernel, "initrd": image.ramdisk}
        if image.dtb:
            files["dtb"] = image.dtb
        paths = {"dtb": self._options.dtb}
        for name, content in files.items():
            paths[name] = self._folder / f"boot-{name}"
            paths[name].write_bytes(content)
        self._loaded = None
        return Loaded(slot, paths["kernel"], paths["initrd"], paths["dtb"], image.cmdline)

    # -- USB

    def enter(self, stage: Stage, dram: Path, ramoops: Ramoops | None) -> None:
        """Run the program of ``stage`` on the DRAM as it is."""
        with self._lock:
            self.leave()
            self._stage = stage
            memory = BoardMemory(dram, self._options.memory_size_bytes)
            self._memory = memory
            if stage is Stage.FASTBOOT:
                fastboot = Fastboot(
                    self.disk,
                    memory,
                    personality=Personality(self._options.personality),
                    serial=self.serial,
                    ramoops=ramoops,
                    on_leave=self._on_leave,
                )
                self._tcp.serve(fastboot)
                self._program = lambda device: serve_usb(device, fastboot)
            else:
                self._program = lambda device: self._sahara(device, stage, memory)
            self._plug()

    def leave(self) -> None:
        """End the program, if one runs."""
        with self._lock:
            self._program = None
            self._tcp.serve(None)
            self._unplug()
            if self._memory is not None:
                self._memory.close()
                self._memory = None

    def replug(self) -> None:
        """Plug the cable in again, if a program runs: it gets another address."""
        with self._lock:
            self._unplug()
            if self._program is not None:
                self._plug()

    def close(self) -> None:
        """Leave the bus, and lose the disk."""
        self.leave()
        self._tcp.close()
        self.bus.give_back()
        self.disk.close()
        for name in ("disk", "boot-kernel", "boot-initrd", "boot-dtb"):
            (self._folder / name).unlink(missing_ok=True)

    def _unplug(self) -> None:
        plugged, self._plugged = self._plugged, None
        if plugged is not None:
            plugged.unplug()

    def _plug(self) -> None:
        assert self._program is not None
        device = Device(self._face(), self.faults)
        self._plugged = self.bus.plug(device)
        device.start(self._program, self._pulled)

    def _pulled(self) -> None:
        """A fault has pulled the cable; the device's own thread tells."""
        again = self.faults.replug

        def act() -> None:
            with self._lock:
                self._unplug()
                if again and self._program is not None:
                    self._plug()

        threading.Timer(_REPLUG_S if again else 0.0, act).start()

    def _face(self) -> Face:
        if self._stage is Stage.FASTBOOT:
            return Face(
                vendor=0x18D1,
                product=0xD00D,
                triple=(0xFF, 0x42, 0x03),
                manufacturer="Google",
                product_text="Android",
                serial_text=self.serial,
                interface_text="fastboot",
                packet_bytes=self.faults.packet_bytes,
            )
        return Face(
            vendor=0x05C6,
            product=_SAHARA_PRODUCT[self._stage],
            triple=(0xFF, 0xFF, 0x10 if self._stage is Stage.EDL else 0x13),
            manufacturer="Qualcomm CDMA Technologies MSM",
            product_text=f"QUSB_BULK_CID:0412_SN:{self.serial}",
            packet_bytes=self.faults.packet_bytes,
        )

    def _sahara(self, device: Device, stage: Stage, memory: BoardMemory) -> None:
        identity = ChipIdentity(
            int(self.serial, 16), HARDWARE_ID, hashlib.sha384(b"root key").digest()
        )
        started: list[bytes] = []
        SaharaDevice(
            identity,
            memory if stage is Stage.CRASH else None,
            on_reset=lambda: self._on_leave(Leave.REBOOT, b""),
            on_programmer=started.append,
        ).run(device)
        if started:
            # The programmer takes over the USB device as it is.
            FirehoseDevice(
                self.disk,
                memory,
                int(self.serial, 16),
                on_power=self._power,
                on_bootable=lambda _: None,
            ).run(device)

    def _power(self, value: str) -> None:
        ways = {"reset_to_edl": Leave.EDL, "off": Leave.POWEROFF}
        self._on_leave(ways.get(value, Leave.REBOOT), b"")
