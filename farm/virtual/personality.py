"""Whose bootloader the board's is like."""

from __future__ import annotations

from enum import StrEnum


class Personality(StrEnum):
    """Whose bootloader it is like."""

    LK2ND = "lk2nd"
    ABL = "abl"
    U_BOOT = "u-boot"
