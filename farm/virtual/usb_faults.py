"""What can go wrong between the board's boot programs and a host; each as seen on real boards."""

from __future__ import annotations

from dataclasses import dataclass, fields

from farm.errors import UsageError


@dataclass
class UsbFaults:
    """Faults that are switched on.

    ``missing_zlp``: transfers of whole packets are not ended. ``extra_zlp``: one follows each
    transfer; ``leading_zlp``: one precedes it. ``short_reads``: data comes in transfers of at most
    so many bytes. ``nak_at``: the Nth Firehose command is refused. ``refuse_read_at``: the Nth
    memory read is answered by END_OF_IMAGE, after ``refuse_after`` bytes of data.
    ``swallow_hello``: HELLO was read by somebody else. ``narrow``: 32-bit Sahara. ``packet_bytes``:
    the largest packet. ``unplug_at``: the cable is pulled after so many bytes; with ``replug``
    the device comes back under another address. ``rate_mb_s``: a slow link. ``hostile_names``:
    region names that are paths. ``log_after``: Firehose logs follow the response.
    """

    missing_zlp: bool = False
    extra_zlp: bool = False
    leading_zlp: bool = False
    short_reads: int = 0
    nak_at: int = 0
    refuse_read_at: int = 0
    refuse_after: int = 0
    swallow_hello: bool = False
    narrow: bool = False
    packet_bytes: int = 512
    unplug_at: int | None = None
    replug: bool = False
    rate_mb_s: float = 0.0
    hostile_names: bool = False
    log_after: bool = False
    peek_spelling: str = "size_in_bytes"

    def cut(self, data: bytes) -> list[bytes]:
        """``data`` in the transfers it goes out in."""
        size = self.short_reads
        if not size or len(data) <= size:
            return [data]
        return [data[at : at + size] for at in range(0, len(data), size)]

    def left_to_unplug(self, moved_bytes: int) -> int | None:
        """How many bytes may still move; None if the cable is not pulled."""
        return None if self.unplug_at is None else self.unplug_at - moved_bytes

    def set(self, name: str, value: str) -> None:
        """Switch on the fault ``name`` with a value as a user types it; raises UsageError."""
        name = name.replace("-", "_")
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        if name not in known:
            words = ", ".join(sorted(known)).replace("_", "-")
            raise UsageError(f"there is no USB fault {name!r}", f"The faults are: {words}.")
        default = getattr(UsbFaults(), name)
        try:
            if isinstance(default, bool):
                if value not in ("on", "off"):
                    raise ValueError("say on or off")
                setattr(self, name, value == "on")
            elif isinstance(default, float):
                setattr(self, name, float(value))
            elif isinstance(default, str):
                setattr(self, name, value)
            else:
                setattr(self, name, int(value, 0))
        except ValueError as error:
            raise UsageError(f"USB fault {name} {value!r}: {error}") from None
        if self.packet_bytes not in (64, 512, 1024):
            self.packet_bytes = 512
            raise UsageError("USB fault packet-bytes: 64, 512 or 1024")

    def clear(self) -> None:
        """Switch all faults off."""
        fresh = UsbFaults()
        for field in fields(self):
            setattr(self, field.name, getattr(fresh, field.name))

    def shown(self) -> list[str]:
        """The faults that are on, in words."""
        fresh = UsbFaults()
        return [
            f"usb {field.name.replace('_', '-')} {getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(fresh, field.name)
        ]
