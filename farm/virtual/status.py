"""What a board is at a moment: the daemon's answer, the state file and ``status --json``."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict, computed_field

# The power port's outlet that is the board's power.
OUTLET = 0


class Presence(Enum):
    """Whether the board's process is there; the value is what ``status`` prints."""

    UP = "up"
    DOWN = "down"
    LOST = "lost"


class Condition(Enum):
    """What the board itself does."""

    OFF = "off"
    RUNNING = "running"
    HUNG = "hung"
    HALTED = "halted"
    EDL = "edl"
    CRASH = "crash"
    FASTBOOT = "fastboot"
    DEAD = "dead"


class BoardStatus(BaseModel):
    """One board; a board that is down has a name only.

    ``usb_path`` and ``usb_serial`` are those of its device in EDL, crash mode and fastboot.
    ``relay_on`` is what the power port reports, ``pid`` is its
    daemon's, ``boots`` counts since the board came up.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    state: Presence
    condition: Condition = Condition.OFF
    relay_on: bool = False
    serial_port: int | None = None
    power_port: int | None = None
    fastboot_port: int | None = None
    usb_path: str = ""
    usb_serial: str = ""
    serial_client: str | None = None
    pid: int | None = None
    qemu_pid: int | None = None
    boots: int = 0
    faults: tuple[str, ...] = ()
    message: str = ""
    host_boot_id: str = ""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def serial_url(self) -> str | None:
        """The serial line, as pyserial takes it."""
        return f"rfc2217://localhost:{self.serial_port}" if self.serial_port else None

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def power_host(self) -> str | None:
        """What labgrid's NetworkPowerPort of model ``simplerest`` takes as host."""
        if self.power_port is None:
            return None
        return f"http://localhost:{self.power_port}/power/{{index}}/{{value}}"

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def power_index(self) -> int:
        """The outlet's index at the power port."""
        return OUTLET

    @property
    def is_lost(self) -> bool:
        """Whether the board failed: its daemon is gone, or its QEMU died."""
        return self.state is Presence.LOST or self.condition is Condition.DEAD
