"""How many bytes of a kernel each object brings, and where one kernel is larger than another.

Counted are the sections that are loaded (SHF_ALLOC): code, data, bss, and the tables of symbols,
bugs and initcalls beside them. Symbols and relocations are not part of a running kernel.
"""

from __future__ import annotations

from pathlib import Path

_ALLOC = 0x2
_OF_KALLSYMS = ".rodata"

Sizes = dict[str, dict[str, int]]
"""Object (relative to the build folder) to section to bytes; empty sections are left out."""


def read(out: Path) -> Sizes:
    """Return the sizes of all objects in the build folder ``out``, and of ``vmlinux``.

    kbuild's own intermediate objects are left out: partial links and symbol tables. So is the
    ``.rodata`` of ``vmlinux``: kallsyms is in it, compressed, with the names of all symbols, and
    those of initcalls carry the number of their line. A blank line makes it larger or smaller. What
    else is there comes from objects, and is counted with them.
    """
    sizes = {name: sections(path) for name, path in _objects(out)}
    linked = sections(out / "vmlinux")
    linked.pop(_OF_KALLSYMS, None)
    sizes["vmlinux"] = linked
    return sizes


def forget_others(out: Path, known: Sizes) -> None:
    """Remove the objects in ``out`` that ``known`` has not: kbuild leaves those of other options.

    What the next build needs of them it makes again.
    """
    for name, path in _objects(out):
        if name not in known:
            path.unlink()


def _objects(out: Path) -> list[tuple[str, Path]]:
    found = [(str(path.relative_to(out)), path) for path in sorted(out.rglob("*.o"))]
    return [
        (name, path)
        for name, path in found
        if not path.name.startswith(".") and not name.startswith(("scripts/", "tools/", "vmlinux."))
    ]


def sections(path: Path) -> dict[str, int]:
    """Return section to bytes of an ELF file; sections of the same name are added up."""
    from elftools.elf.elffile import ELFFile

    found: dict[str, int] = {}
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if section["sh_flags"] & _ALLOC and section["sh_size"]:
                found[section.name] = found.get(section.name, 0) + section["sh_size"]
    return found


def growth(before: Sizes, now: Sizes) -> list[str]:
    """Return one line per object and section that is larger than before, or is new or gone.

    A section may become smaller: code that was moved or shared is no loss. An object that is gone
    took something along that the options had nothing to do with.
    """
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, fresh = before.get(name), now.get(name)
        if old is None or fresh is None:
            total = sum((old or fresh or {}).values())
            if total:
                lines.append(f"{name}: {total} bytes, only {'with' if old is None else 'without'}")
            continue
        lines += [
            f"{name} {section}: {old.get(section, 0)} -> {fresh.get(section, 0)} bytes "
            f"({fresh.get(section, 0) - old.get(section, 0):+d})"
            for section in sorted(old.keys() | fresh.keys())
            if old.get(section, 0) < fresh.get(section, 0)
        ]
    return lines


def smaller(before: Sizes, now: Sizes) -> list[str]:
    """Return the objects whose sections together are smaller than before."""
    return [
        name
        for name, old in sorted(before.items())
        if sum(now.get(name, {}).values()) < sum(old.values())
    ]
