"""The words that outlive a reset: the reboot reason and the download-mode cookie.

They lie in a page of DRAM that the kernel leaves alone and sees as a syscon, so that its own
``syscon-reboot-mode`` writes the reason. Source: drivers/power/reset/reboot-mode.c of Linux 6.12: a
restart writes the magic of its mode, ``mode-normal`` for a plain one; a panic and an emergency
restart write nothing, so a zero there means that nobody has ended in order.
"""

from __future__ import annotations

import os
import struct
from enum import Enum
from pathlib import Path

from farm.virtual.devicetree import RAM_BASE_PADDR

IMEM_PADDR = 0x5FDF_F000
IMEM_SIZE_BYTES = 0x1000
REASON_OFFSET = 0x65C
DOWNLOAD_OFFSET = 0x10
DOWNLOAD_FULL = 0x10
# As the older Qualcomm boards have them, with one more for the boot ROM.
REASONS = {
    0x7766_5501: "normal",
    0x7766_5500: "bootloader",
    0x7766_5502: "recovery",
    0x7766_5506: "edl",
}


class Stage(Enum):
    """What runs after a reset."""

    KERNEL = "kernel"
    EDL = "edl"
    CRASH = "crash"
    FASTBOOT = "fastboot"


class Imem:
    """The page in the DRAM file; a board too small for it has none, and always boots."""

    def __init__(self, dram: Path, dram_size_bytes: int) -> None:
        self._dram = dram
        self._there = RAM_BASE_PADDR + dram_size_bytes >= IMEM_PADDR + IMEM_SIZE_BYTES

    def word(self, offset: int) -> int:
        """The word at ``offset``."""
        if not self._there:
            return 0
        with self._dram.open("rb") as file:
            raw = os.pread(file.fileno(), 4, IMEM_PADDR - RAM_BASE_PADDR + offset)
        return int(struct.unpack("<I", raw)[0]) if len(raw) == 4 else 0

    def set_word(self, offset: int, value: int) -> None:
        """Change the word at ``offset``."""
        if self._there:
            with self._dram.open("r+b") as file:
                place = IMEM_PADDR - RAM_BASE_PADDR + offset
                os.pwrite(file.fileno(), struct.pack("<I", value), place)

    def after_reset(self) -> tuple[Stage, str]:
        """What a warm reset leads to, and why; the words are used up by that."""
        reason = self.word(REASON_OFFSET)
        download = self.word(DOWNLOAD_OFFSET)
        self.set_word(REASON_OFFSET, 0)
        if reason == 0:
            self.set_word(DOWNLOAD_OFFSET, 0)
            if download == DOWNLOAD_FULL:
                return Stage.CRASH, "unorderly reset, download mode"
            return Stage.KERNEL, "unorderly reset"
        name = REASONS.get(reason, f"{reason:#x}")
        stages = {"edl": Stage.EDL, "bootloader": Stage.FASTBOOT}
        return stages.get(name, Stage.KERNEL), f"reboot mode {name}"
