"""List panicdump's devices and regions in drgn: of the running kernel, or of a core file.

    drgn -c VMCORE -s vmlinux farm/decode/drgn_panicdump.py
    drgn farm/decode/drgn_panicdump.py                  # this computer, with debug information

Or, in a session, `from drgn_panicdump import panicdump_regions`. Nothing but drgn is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KINDS = {1: "buffer", 2: "registers", 3: "callback", 4: "note"}


def panicdump_regions(prog: Any) -> Iterator[Any]:
    """The entries of the kernel's table that are in use: `struct panicdump_table_entry *`."""
    from drgn import Object

    table = prog["panicdump_table"]
    first = table.entries_va.value_()
    if not first:
        return
    size = table.entry_size.value_()
    for number in range(table.nr_entries.value_()):
        entry = Object(prog, "struct panicdump_table_entry *", value=first + number * size)
        if entry.device_id.value_() and entry.generation.value_() % 2 == 0:
            yield entry


def name_of(field: Any) -> str:
    """A name of fixed size, which has no NUL at its end when it is full."""
    return bytes(field.to_bytes_()).split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def print_regions(prog: Any) -> None:
    """Print a line for each region."""
    print(f"{'id':>4} {'driver':<20} {'device':<28} {'region':<12} {'kind':<9} {'va':>18} size")
    for entry in panicdump_regions(prog):
        kind = KINDS.get(entry.kind.value_(), hex(entry.kind.value_()))
        print(
            f"{entry.device_id.value_():>4} {name_of(entry.driver):<20} "
            f"{name_of(entry.device):<28} {name_of(entry.region):<12} {kind:<9} "
            f"{entry.va.value_():#18x} {entry.size.value_()}"
        )


if __name__ == "__main__":
    # drgn puts the program into the script's globals.
    print_regions(globals()["prog"])
