"""The kernel's usbfs, played for programs that libumockdev-preload wraps: /dev/bus/usb and sysfs.

Source: Linux 6.12, include/uapi/linux/usbdevice_fs.h and drivers/usb/core/devio.c; umockdev 0.17,
src/libumockdev-preload.c (a request is three native u64 over a Unix stream socket) and
src/uevent_sender.c (the datagram that libudev's monitors take).
Left out: isochronous transfers, streams, interrupt endpoints, suspend; 32-bit clients.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from farm.virtual.usb_device import EP_IN, EP_OUT, Device
from farm.virtual.usb_pipe import OverflowedError, UnpluggedError

_WORDS = struct.Struct("=3Q")
_REQ_IOCTL, _REQ_READ, _REQ_WRITE = 1, 7, 8
_RES_DONE, _RES_READ_MEM, _RES_WRITE_MEM = 3, 5, 6
_FAILED = (1 << 64) - 1

_CONTROL = 0xC018_5500
_BULK = 0xC018_5502
_RESET_ENDPOINT = 0x8004_5503
_SET_INTERFACE = 0x8008_5504
_SET_CONFIGURATION = 0x8004_5505
_GET_DRIVER = 0x4104_5508
_SUBMIT_URB = 0x8038_550A
_DISCARD_URB = 0x0000_550B
_REAP_URB = 0x4008_550C
_REAP_URB_NO_DELAY = 0x4008_550D
_CLAIM = 0x8004_550F
_RELEASE = 0x8004_5510
_IOCTL = 0xC010_5512
_RESET = 0x0000_5514
_CLEAR_HALT = 0x8004_5515
_CAPABILITIES = 0x8004_551A
_DISCONNECT_CLAIM = 0x8108_551B
_SPEED = 0x0000_551F
_HARMLESS = frozenset(
    {_RESET_ENDPOINT, _SET_INTERFACE, _SET_CONFIGURATION, _RELEASE, _CLEAR_HALT, _RESET}
)

# ZERO_PACKET | NO_PACKET_SIZE_LIM | BULK_SCATTER_GATHER | REAP_AFTER_DISCONNECT. With
# BULK_CONTINUATION libusb would cut everything into URBs of 16 KiB.
_CAPS = 0x01 | 0x04 | 0x08 | 0x10
_BULK_TRANSFER = struct.Struct("=3I4xQ")
_CONTROL_TRANSFER = struct.Struct("=BBHHHI4xQ")
_URB_HEAD = struct.Struct("=BB2xiI4xQii")
_URB_BYTES = 56
_URB_CONTROL, _URB_BULK = 2, 3
_URB_ZERO_PACKET = 0x40
# A client's poll() on a device node never sleeps: an answer is held back so long instead.
_HOLD_S = 0.05
_BOTH_S = 0.002
_SPEED_HIGH, _SPEED_SUPER = 3, 5
_LIMIT_BYTES = 256 << 20
_ACCEPT_BACKLOG = 16


@dataclass
class _Urb:
    address: int
    kind: int
    endpoint: int
    flags: int
    buffer: int
    length: int
    data: bytes = b""
    status: int | None = None
    pieces: tuple[memoryview, ...] = ()
    actual: int = 0


class _Closed(Exception):
    """The client has closed the device node."""


class _Client:
    """One open device node."""

    def __init__(self, connection: socket.socket, device: Device, claims: dict[int, object]):
        self._connection = connection
        self._device = device
        self._claims = claims
        self._read_at = 0
        self._pending: deque[_Urb] = deque()
        self._cancel = threading.Event()

    def serve(self) -> None:
        """Answer requests until the client closes the node."""
        try:
            while True:
                kind, first, second = _WORDS.unpack(self._exactly(_WORDS.size))
                try:
                    answer = self._request(kind, first, second)
                except UnpluggedError:
                    answer = -errno.ENODEV
                self._done(answer)
        except (_Closed, OSError):
            pass
        finally:
            for number in [n for n, owner in self._claims.items() if owner is self]:
                del self._claims[number]
            self._connection.close()

    # -- the wire

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._connection.recv_into(view)
            if not got:
                raise _Closed
            view = view[got:]
        return bytes(data)

    def _done(self, answer: int) -> None:
        if answer < 0:
            self._connection.sendall(_WORDS.pack(_RES_DONE, _FAILED, -answer))
        else:
            self._connection.sendall(_WORDS.pack(_RES_DONE, answer, 0))

    def _get(self, address: int, size: int) -> bytes:
        if size > _LIMIT_BYTES:
            raise _Closed
        if not size:
            return b""
        self._connection.sendall(_WORDS.pack(_RES_READ_MEM, address, size))
        return self._exactly(size)

    def _put(self, address: int, *pieces: bytes | memoryview) -> None:
        size = sum(map(len, pieces))
        if size:
            self._connection.sendall(_WORDS.pack(_RES_WRITE_MEM, address, size))
            for piece in pieces:
                self._connection.sendall(piece)

    # -- requests

    def _request(self, kind: int, first: int, second: int) -> int:
        if kind == _REQ_READ:
            return self._read_descriptors(first, second)
        if kind != _REQ_IOCTL:
            return -errno.EINVAL
        if self._device.gone and first not in (_REAP_URB_NO_DELAY, _DISCARD_URB, _RELEASE):
            return -errno.ENODEV
        if first == _BULK:
            return self._bulk(second)
        if first == _SUBMIT_URB:
            return self._submit(second)
        if first in (_REAP_URB_NO_DELAY, _REAP_URB):
            return self._reap(second)
        if first == _DISCARD_URB:
            return self._discard(second)
        return self._small(first, second)

    def _small(self, request: int, argument: int) -> int:
        if request == _CLAIM:
            return self._claim(struct.unpack("=I", self._get(argument, 4))[0])
        if request == _DISCONNECT_CLAIM:
            return self._claim(struct.unpack("=I", self._get(argument, 4))[0])
        if request == _CAPABILITIES:
            self._put(argument, struct.pack("=I", _CAPS))
            return 0
        if request == _SPEED:
            return _SPEED_SUPER if self._device.face.packet_bytes > 512 else _SPEED_HIGH
        if request in (_IOCTL, _GET_DRIVER):
            # No kernel driver is bound to the interface.
            return -errno.ENODATA
        if request == _CONTROL:
            return self._control_ioctl(argument)
        return 0 if request in _HARMLESS else -errno.ENOTTY

    def _claim(self, number: int) -> int:
        if number != 0:
            return -errno.ENOENT
        if self._claims.setdefault(number, self) is not self:
            return -errno.EBUSY
        return 0

    def _read_descriptors(self, address: int, size: int) -> int:
        face = self._device.face
        whole = face.device_descriptor() + face.configuration_descriptor()
        piece = whole[self._read_at : self._read_at + size]
        self._read_at += len(piece)
        self._put(address, piece)
        return len(piece)

    def _control(self, setup: bytes) -> bytes | None:
        """The answer of endpoint 0; None for a stall."""
        kind, request, value, _, length = struct.unpack("<BBHHH", setup)
        if kind == 0x80 and request == 6:
            face = self._device.face
            which, index = value >> 8, value & 0xFF
            found = {1: face.device_descriptor(), 2: face.configuration_descriptor()}.get(which)
            if which == 3:
                found = face.string_descriptor(index)
            return None if found is None else found[:length]
        if kind == 0x80 and request == 8:
            return b"\1"[:length]
        if kind == 0x80 and request == 0:
            return b"\0\0"[:length]
        if kind in (0x00, 0x01, 0x02) and request in (1, 9, 11):
            return b""
        return None

    def _control_ioctl(self, argument: int) -> int:
        kind, request, value, index, length, _, data = _CONTROL_TRANSFER.unpack(
            self._get(argument, _CONTROL_TRANSFER.size)
        )
        answer = self._control(struct.pack("<BBHHH", kind, request, value, index, length))
        if answer is None:
            return -errno.EPIPE
        self._put(data, answer)
        return len(answer)

    # -- synchronous bulk

    def _bulk(self, argument: int) -> int:
        endpoint, length, timeout_ms, data = _BULK_TRANSFER.unpack(
            self._get(argument, _BULK_TRANSFER.size)
        )
        end = time.monotonic() + timeout_ms / 1000 if timeout_ms else None
        if endpoint == EP_OUT:
            sent = self._get(data, length)
            pipe = self._device.to_device
            while not pipe.offer(sent):
                if end is not None and time.monotonic() > end:
                    return -errno.ETIMEDOUT
                pipe.wait_change(_HOLD_S, pipe.version)
            return int(length)
        if endpoint != EP_IN:
            return -errno.ENOENT
        try:
            pieces = self._device.to_host.take(length, end, self._cancel)
        except TimeoutError:
            # The kernel kills the transfer; what had come of it is lost.
            self._device.to_host.take_part(length)
            return -errno.ETIMEDOUT
        except OverflowedError:
            return -errno.EOVERFLOW
        self._put(data, *pieces)
        return sum(map(len, pieces))

    # -- URBs

    def _submit(self, argument: int) -> int:
        raw = self._get(argument, _URB_BYTES)
        kind, endpoint, _, flags, buffer, length, _ = _URB_HEAD.unpack_from(raw)
        urb = _Urb(argument, kind, endpoint, flags, buffer, length)
        if kind == _URB_CONTROL:
            setup = self._get(buffer, 8)
            answer = self._control(setup)
            if answer is None:
                urb.status = -errno.EPIPE
            else:
                urb.status, urb.actual = 0, len(answer)
                self._put(buffer + 8, answer)
        elif kind == _URB_BULK and endpoint == EP_OUT:
            urb.data = self._get(buffer, length)
        elif kind != _URB_BULK or endpoint != EP_IN:
            return -errno.ENOENT
        self._pending.append(urb)
        return 0

    def _progress(self) -> _Urb | None:
        """The first transfer that has ended; each endpoint keeps its order."""
        waiting: set[int] = set()
        for urb in self._pending:
            if urb.status is None and urb.endpoint not in waiting:
                self._try(urb)
            if urb.status is not None:
                return urb
            waiting.add(urb.endpoint)
        return None

    def _try(self, urb: _Urb) -> None:
        try:
            if urb.endpoint == EP_OUT:
                if self._device.to_device.offer(urb.data):
                    whole = urb.length % self._device.face.packet_bytes == 0
                    if urb.flags & _URB_ZERO_PACKET and whole and urb.length:
                        self._device.to_device.offer(b"")
                    urb.status, urb.actual = 0, urb.length
            else:
                pieces = self._device.to_host.try_take(urb.length)
                if pieces is not None:
                    urb.pieces = tuple(pieces)
                    urb.status, urb.actual = 0, sum(map(len, pieces))
        except OverflowedError:
            urb.status = -errno.EOVERFLOW
        except UnpluggedError:
            urb.status = -errno.ESHUTDOWN

    def _reap(self, argument: int) -> int:
        end = time.monotonic() + _HOLD_S
        while True:
            to_host, to_device = self._device.to_host, self._device.to_device
            since = to_host.version, to_device.version
            urb = self._progress()
            if urb is not None:
                self._pending.remove(urb)
                if urb.pieces:
                    self._put(urb.buffer, *urb.pieces)
                self._put(urb.address + 4, struct.pack("=i", urb.status))
                self._put(urb.address + 28, struct.pack("=i", urb.actual))
                self._put(argument, struct.pack("=Q", urb.address))
                return 0
            if not self._pending:
                return -errno.ENODEV if self._device.gone else -errno.EAGAIN
            left_s = end - time.monotonic()
            if left_s <= 0:
                return -errno.EAGAIN
            endpoints = {urb.endpoint for urb in self._pending}
            if endpoints == {EP_IN}:
                to_host.wait_change(left_s, since[0])
            else:
                to_device.wait_change(left_s if endpoints == {EP_OUT} else _BOTH_S, since[1])

    def _discard(self, address: int) -> int:
        for urb in self._pending:
            if urb.address == address and urb.status is None:
                if urb.endpoint == EP_IN:
                    with contextlib.suppress(UnpluggedError):
                        urb.pieces = tuple(self._device.to_host.take_part(urb.length))
                        urb.actual = sum(map(len, urb.pieces))
                urb.status = -errno.ENOENT
                return 0
        return -errno.EINVAL


@dataclass(frozen=True)
class Port:
    """Where a device is plugged in: bus, port on its root hub, and the address it got."""

    bus: int
    port: int
    address: int

    @property
    def name(self) -> str:
        """As the kernel names it: 1-2."""
        return f"{self.bus}-{self.port}"

    @property
    def node(self) -> str:
        """The device node, below /dev."""
        return f"bus/usb/{self.bus:03d}/{self.address:03d}"

    @property
    def minor(self) -> int:
        """The node's minor number."""
        return (self.bus - 1) * 128 + self.address - 1


def _hash32(text: str) -> int:
    """MurmurHash2, as udev's monitors filter by it (systemd, src/basic/MurmurHash2.c)."""
    mask, multiplier = 0xFFFF_FFFF, 0x5BD1_E995
    data = text.encode()
    value = len(data)
    whole = len(data) - len(data) % 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = (word * multiplier) & mask
        mixed ^= mixed >> 24
        value = (value * multiplier) & mask ^ (mixed * multiplier) & mask
    rest = data[whole:]
    if rest:
        value = ((value ^ int.from_bytes(rest, "little")) * multiplier) & mask
    value ^= value >> 13
    value = (value * multiplier) & mask
    return value ^ value >> 15


class Tree:
    """One umockdev folder: a sysfs, device nodes, their sockets, and listeners for events."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sequence = int(time.time())

    def prepare(self) -> None:
        """Make what even an empty bus has; safe to do twice."""
        bus = self.root / "sys/bus/usb"
        for folder in (bus / "devices", bus / "drivers", self.root / "sys/class"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / "dev/bus/usb").mkdir(parents=True, exist_ok=True)
        (self.root / "dev/.node").mkdir(parents=True, exist_ok=True)
        self._hub(1)

    def _devices(self, bus: int) -> Path:
        return self.root / f"sys/devices/platform/panic-farm-hcd/usb{bus}"

    def _hub(self, bus: int) -> None:
        folder = self._devices(bus)
        if (folder / "uevent").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = bytes.fromhex("12010002090001406b1d02000600030201 01".replace(" ", ""))
        self._sysfs(
            folder,
            {
                "busnum": str(bus),
                "devnum": "1",
                "speed": "480",
                "bConfigurationValue": "1",
                "idVendor": "1d6b",
                "idProduct": "0002",
                "bDeviceClass": "09",
                "uevent": "DEVTYPE=usb_device",
            },
        )
        (folder / "descriptors").write_bytes(descriptor)
        self._link(folder / "subsystem", self.root / "sys/bus/usb")
        self._link(self.root / f"sys/bus/usb/devices/usb{bus}", folder)

    def _sysfs(self, folder: Path, values: dict[str, str]) -> None:
        for name, value in values.items():
            (folder / name).write_text(value + "\n")

    def _link(self, link: Path, target: Path) -> None:
        with contextlib.suppress(FileExistsError):
            link.symlink_to(os.path.relpath(target, link.parent))

    def socket_path(self, port: Port) -> Path:
        """Where the device's socket is."""
        return self.root / "ioctl/dev" / port.node

    def plug(self, port: Port, device: Device, listener: Path | None) -> None:
        """Show a device; ``listener`` is another tree's socket for it, None to make one here."""
        face = device.face
        folder = self._devices(port.bus) / port.name
        interface = folder / f"{port.name}:1.0"
        interface.mkdir(parents=True, exist_ok=True)
        rules = self._found_by_rules(port, device)
        product = f"{face.vendor:x}/{face.product:x}/0"
        texts = {
            "manufacturer": face.manufacturer,
            "product": face.product_text,
            "serial": face.serial_text,
        }
        self._sysfs(
            folder,
            {
                "busnum": str(port.bus),
                "devnum": str(port.address),
                "devpath": str(port.port),
                "speed": "5000" if face.packet_bytes > 512 else "480",
                "bConfigurationValue": "1",
                "bNumConfigurations": "1",
                "bNumInterfaces": " 1",
                "bDeviceClass": "00",
                "idVendor": f"{face.vendor:04x}",
                "idProduct": f"{face.product:04x}",
                "bcdDevice": "0000",
                **{name: text for name, text in texts.items() if text},
                "uevent": "\n".join(
                    [
                        "MAJOR=189",
                        f"MINOR={port.minor}",
                        f"DEVNAME={port.node}",
                        "DEVTYPE=usb_device",
                        "DRIVER=usb",
                        f"PRODUCT={product}",
                        f"BUSNUM={port.bus:03d}",
                        f"DEVNUM={port.address:03d}",
                        *rules,
                    ]
                ),
            },
        )
        (folder / "descriptors").write_bytes(
            face.device_descriptor() + face.configuration_descriptor()
        )
        names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
        self._sysfs(
            interface,
            {
                "bInterfaceNumber": "00",
                "bAlternateSetting": " 0",
                "bNumEndpoints": "02",
                **{name: f"{value:02x}" for name, value in zip(names, face.triple, strict=True)},
                **({"interface": face.interface_text} if face.interface_text else {}),
                "uevent": "DEVTYPE=usb_interface\n"
                f"PRODUCT={product}\nINTERFACE={'/'.join(map(str, face.triple))}",
            },
        )
        for place in (folder, interface):
            self._link(place / "subsystem", self.root / "sys/bus/usb")
        node = self.root / "dev" / port.node
        node.parent.mkdir(parents=True, exist_ok=True)
        node.write_bytes(b"")
        named = self.root / "dev/.node" / port.node.replace("/", "_")
        named.unlink(missing_ok=True)
        named.symlink_to(f"189:{port.minor}")
        place = self.socket_path(port)
        place.parent.mkdir(parents=True, exist_ok=True)
        if listener is not None:
            place.unlink(missing_ok=True)
            place.symlink_to(listener)
        self._link(self.root / f"sys/bus/usb/devices/{interface.name}", interface)
        # Last: from here on a host finds it.
        self._link(self.root / f"sys/bus/usb/devices/{port.name}", folder)
        self._event("add", port, product, rules)

    def _found_by_rules(self, port: Port, device: Device) -> list[str]:
        """What udev's rules would have found out: labgrid matches by such properties."""
        face = device.face
        return [
            f"ID_VENDOR_ID={face.vendor:04x}",
            f"ID_MODEL_ID={face.product:04x}",
            f"ID_PATH=platform-panic-farm-hcd-usb-0:{port.port}",
            *([f"ID_SERIAL_SHORT={face.serial_text}"] if face.serial_text else []),
        ]

    def unplug(self, port: Port, product: str) -> None:
        """Take a device away; safe to do twice."""
        devices = self.root / "sys/bus/usb/devices"
        folder = self._devices(port.bus) / port.name
        there = folder.exists()
        for link in (port.name, f"{port.name}:1.0"):
            (devices / link).unlink(missing_ok=True)
        if there:
            self._event("remove", port, product, [])
        for place in (folder / f"{port.name}:1.0", folder):
            if place.is_dir():
                for file in place.iterdir():
                    if not file.is_dir() or file.is_symlink():
                        file.unlink()
                place.rmdir()
        (self.root / "dev" / port.node).unlink(missing_ok=True)
        (self.root / "dev/.node" / port.node.replace("/", "_")).unlink(missing_ok=True)
        self.socket_path(port).unlink(missing_ok=True)

    def sweep(self, bus: int, port: int) -> None:
        """Take away a device that was left at ``port`` by a program that was killed."""
        folder = self._devices(bus) / f"{bus}-{port}"
        try:
            address = int((folder / "devnum").read_text())
        except (OSError, ValueError):
            return
        self.unplug(Port(bus, port, address), "0/0/0")

    def _event(self, action: str, port: Port, product: str, rules: list[str]) -> None:
        self._sequence += 1
        path = f"/devices/platform/panic-farm-hcd/usb{port.bus}/{port.name}"
        properties = [
            f"ACTION={action}",
            f"DEVPATH={path}",
            "SUBSYSTEM=usb",
            f"SEQNUM={self._sequence}",
            "MAJOR=189",
            f"MINOR={port.minor}",
            f"DEVNAME={port.node}",
            "DEVTYPE=usb_device",
            f"PRODUCT={product}",
            f"BUSNUM={port.bus:03d}",
            f"DEVNUM={port.address:03d}",
            *rules,
        ]
        body = "".join(f"{one}\0" for one in properties).encode()
        head = struct.pack("=8s", b"libudev\0") + struct.pack(">I", 0xFEED_CAFE)
        head += struct.pack("=3I", 40, 40, len(body))
        head += struct.pack(">4I", _hash32("usb"), _hash32("usb_device"), 0, 0)
        for listener in self.root.glob("event*"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                try:
                    sender.sendto(head + body, str(listener))
                except ConnectionRefusedError:
                    # Its program has ended.
                    listener.unlink(missing_ok=True)
                except OSError:
                    continue


class Plugged:
    """A device on one or more trees, and the threads that serve its clients."""

    def __init__(self, trees: list[Tree], port: Port, device: Device) -> None:
        self.port = port
        self.device = device
        self._trees = trees
        face = device.face
        self._product = f"{face.vendor:x}/{face.product:x}/0"
        first = trees[0].socket_path(port)
        first.parent.mkdir(parents=True, exist_ok=True)
        first.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(first))
        self._listener.listen(_ACCEPT_BACKLOG)
        self._claims: dict[int, object] = {}
        threading.Thread(target=self._accept, name="usb-accept", daemon=True).start()
        for number, tree in enumerate(trees):
            tree.plug(port, device, first if number else None)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            client = _Client(connection, self.device, self._claims)
            threading.Thread(target=client.serve, name="usb-client", daemon=True).start()

    def unplug(self) -> None:
        """Take the device away; clients that hold it get ENODEV."""
        self.device.unplug()
        for tree in self._trees:
            tree.unplug(self.port, self._product)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
