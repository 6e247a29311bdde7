"""Rules about the table of regions in a dump of the memory: is it there, and is it this boot's?"""

from __future__ import annotations

from collections.abc import Callable

from farm.errors import FarmError
from farm.formats.cut_table import WholeTable, decode_cut_table
from farm.judge.case import zone_finding
from farm.judge.channels import TABLE
from farm.judge.names import shown
from farm.model import Capture, CycleInput, Finding, FindingKind, Manifest, Verdict

__all__ = ["judge_table"]


def _difference(table: WholeTable, manifest: Manifest) -> str | None:
    """What the table says that the live board did not, or the reverse."""
    if table.boot_id != manifest.boot_id.lower():
        return f"it is of another boot ({table.boot_id})"
    wanted = {
        (device.id, region.index): (device.driver, device.name, region.name, region.size_bytes)
        for device in manifest.devices
        for region in device.regions
    }
    found = {
        (entry.device_id, entry.region_index): (
            entry.driver,
            entry.device,
            entry.region,
            entry.size_bytes,
        )
        for entry in table.entries
    }
    for place in sorted(wanted.keys() | found.keys()):
        if wanted.get(place) != found.get(place):
            return (
                f"region {place[1]} of device {place[0]} is {shown(str(found.get(place)))}, "
                f"registered is {shown(str(wanted.get(place)))}"
            )
    return None


def judge_table(cycle: CycleInput, read_capture: Callable[[Capture], bytes]) -> list[Finding]:
    """Judge the table, if the cycle read the memory for it."""
    if cycle.manifest is None or not any(one.channel == TABLE for one in cycle.channels):
        return []
    capture = next((one for one in cycle.captures if one.channel == TABLE), None)
    if capture is None:
        message = "no table of regions is in the dump of the memory"
        return [zone_finding(FindingKind.MISSING, Verdict.FAIL, message)]
    try:
        table = decode_cut_table(read_capture(capture))
    except (FarmError, OSError) as error:
        message = f"the table of regions in the memory cannot be read: {error}"
        return [zone_finding(FindingKind.CORRUPT, Verdict.FAIL, message, file=capture.path)]
    wrong = _difference(table, cycle.manifest)
    if wrong is not None:
        message = f"the table of regions in the memory is wrong: {wrong}"
        return [zone_finding(FindingKind.CORRUPT, Verdict.FAIL, message, file=capture.path)]
    message = f"the table in the memory lists all {len(table.entries)} registered regions"
    return [zone_finding(FindingKind.INTACT, Verdict.PASS, message, file=capture.path)]
