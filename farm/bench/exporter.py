"""``farm-exporter``: labgrid's exporter, which has no plug-ins, plus the board's USB."""

from __future__ import annotations

from typing import Any

import attr
from labgrid.remote import exporter

from farm.bench.qualcomm_udev import QualcommUSBDevice


@attr.s(eq=False)
class QualcommUSBExport(exporter.ResourceExport):  # type: ignore[misc]  # labgrid has no types
    """Exports a QualcommUSBDevice."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.data["cls"] = "NetworkQualcommUSBDevice"
        make: Any = QualcommUSBDevice
        self.local = make(target=None, name=None, **self.local_params)

    def _get_params(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "busnum": self.local.busnum,
            "devnum": self.local.devnum,
            "path": self.local.path,
            "vendor_id": self.local.vendor_id,
            "model_id": self.local.model_id,
            "serial": self.local.serial,
        }


def register() -> None:
    """Add what this farm exports to labgrid's list."""
    exporter.exports["QualcommUSBDevice"] = QualcommUSBExport


def main() -> None:
    """Run labgrid's exporter."""
    register()
    exporter.main()
