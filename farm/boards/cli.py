"""``farm board``: a real board's description, and where its ramoops can lie."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.errors import UsageError

EXIT_CONFLICT = 2

app = typer.Typer(
    help="Real boards: write a description from a DTB, check where ramoops lies.",
    no_args_is_help=True,
    add_completion=False,
)

Board = Annotated[
    str, typer.Argument(help="A DTB file, or the name of a board in the kernel's source.")
]
Base = Annotated[str, typer.Option(help="Whose source has the boards.")]
Ram = Annotated[
    list[str] | None,
    typer.Option("--ram", metavar="START+SIZE", help="RAM of the board, where it is not known."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class _Examined:
    blob: bytes
    tree: Any
    facts: Any
    memory: Any


def _areas(texts: list[str] | None) -> tuple[Any, ...]:
    from farm.boards.area import Area

    found = []
    for text in texts or ():
        start, plus, size = text.partition("+")
        try:
            area = Area(int(start, 0), int(size, 0), "RAM")
        except ValueError:
            plus = ""
        if not plus or area.paddr < 0 or area.length_bytes <= 0:
            raise UsageError(f"--ram {text}: START+SIZE is wanted, as 0x80000000+0x40000000")
        found.append(area)
    return tuple(found)


def _examine(board: str, base: str, ram: list[str] | None) -> _Examined:
    from farm.boards.chips import facts_of
    from farm.boards.place import memory_of
    from farm.boards.tree import parse_tree
    from farm.build import kernel_trees

    path = Path(board)
    if path.suffix == ".dtb" or "/" in board or path.is_file():
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    else:
        linux = kernel_trees.unpacked(base, _Bar(f"unpack linux {base}"))
        blob, path = kernel_trees.blob_of(linux, board), Path(f"{board}.dtb")
    tree = parse_tree(blob, path)
    facts = facts_of(tree)
    return _Examined(blob, tree, facts, memory_of(tree, facts, _areas(ram)))


class _Bar:
    """Progress on one line of a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            share = f"{100 * done // total} %" if total else f"{done}"
            print(f"\r{self._what}: {share} ", end="", file=sys.stderr, flush=True)
            if total and done >= total:
                print(file=sys.stderr)


def _ask(given: str | None, question: str, default: str, *, ask: bool) -> str:
    if given is not None:
        return given
    return str(typer.prompt(question, default=default, err=True)) if ask else default


def _choice(value: str, known: tuple[str, ...], option: str) -> Any:
    if value not in known:
        raise UsageError(f"{option} {value}: it is one of {', '.join(known)}")
    return value


@app.command()
def new(
    board: Board,
    serial: Annotated[
        str | None, typer.Option(help="Console: a device, or HOST:PORT of an RFC 2217 server.")
    ] = None,
    power: Annotated[
        str | None,
        typer.Option(help="What switches it: qcomlt (debug board), tac (Alpaca), network."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(help="Where that is: the debug board's port, pytactl's URL, the switch's."),
    ] = None,
    control_serial: Annotated[
        str | None, typer.Option(help="tac: its serial number; network: the outlet.")
    ] = None,
    usb_serial: Annotated[
        str | None, typer.Option(help="The board's USB serial number, in all modes.")
    ] = None,
    usb_path: Annotated[
        str | None, typer.Option(help="Else its USB path, as the kernel writes it: 1-2.3.")
    ] = None,
    bootloader: Annotated[
        str | None, typer.Option(help="lk2nd, abl or u-boot; known for some chips.")
    ] = None,
    ram: Ram = None,
    out: Annotated[Path, typer.Option(help="The folder for both files.")] = Path("devices"),
    base: Base = "6.12",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a board's labgrid environment and the overlay with its ramoops node.

    What is not given is asked for on a terminal, and otherwise left at a value that is marked
    "here" in the file. What only the board can settle is listed under `assumptions`, and by `farm
    doctor`.
    """
    from farm.boards import describe, overlay
    from farm.boards.place import Place, find_place
    from farm.build import devicetree

    seen = _examine(board, base, ram)
    stem = seen.tree.stem
    place = find_place(seen.tree, seen.memory, seen.facts)
    if not isinstance(place, Place):
        raise UsageError(
            f"{seen.tree.source}: there is no place for ramoops:\n  " + "\n  ".join(place),
            "Say what RAM the board has: --ram 0x80000000+0x40000000.",
        )
    ask = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
    usual = describe.Bench()
    known = seen.facts.bootloader if seen.facts is not None else "abl"
    kind = _choice(
        _ask(power, "What switches its power (qcomlt, tac, network)?", usual.power, ask=ask),
        ("qcomlt", "tac", "network"),
        "--power",
    )
    loader = _choice(
        _ask(bootloader, "Whose bootloader (lk2nd, abl, u-boot)?", known, ask=ask),
        ("lk2nd", "abl", "u-boot"),
        "--bootloader",
    )
    line = _ask(serial, "Its console (device, or HOST:PORT)?", usual.serial, ask=ask)
    if not line.startswith("/") and not line.rpartition(":")[2].isdecimal():
        raise UsageError(f"--serial {line}: a device such as /dev/ttyUSB0, or HOST:PORT")
    bench = describe.Bench(
        serial=line,
        power=kind,
        control=_ask(control, f"Where is the power switch ({kind})?", "", ask=ask and not control),
        control_serial=control_serial or usual.control_serial,
        usb_serial=_ask(usb_serial, "USB serial number (empty: by path)?", "", ask=ask),
        usb_path=usb_path or usual.usb_path,
    )
    text = describe.environment(seen.tree, seen.memory, place, seen.facts, bench, loader)
    source = overlay.source(seen.tree, place)
    # An overlay that does not compile or apply must not be written.
    devicetree.apply_overlay(seen.blob, devicetree.compile_overlay(source, stem), stem)
    files = {out / f"{stem}.yaml": text, out / f"{stem}.dtso": source}
    there = [str(one) for one in files if one.exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)}: already there", "Give --force to replace them.")
    out.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        file.write_text(content)
    if as_json:
        print(
            json.dumps(
                {
                    "files": [str(one) for one in files],
                    "paddr": place.area.paddr,
                    "length_bytes": place.area.length_bytes,
                    "why": place.why,
                }
            )
        )
        return
    for file in files:
        print(file)
    print(f"ramoops at {place.area.paddr:#x}, {place.area.length_bytes:#x} bytes: {place.why}")
    print(f"next: farm doctor --lg-env {out / stem}.yaml")


@app.command()
def check(
    board: Board,
    overlay_file: Annotated[
        Path | None,
        typer.Option("--overlay", help="The overlay's source; else devices/BOARD.dtso, if any."),
    ] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(help="An Image: must have a driver for all that the console depends on."),
    ] = None,
    ram: Ram = None,
    base: Base = "6.12",
    as_json: AsJson = False,
) -> None:
    """Check where a board's ramoops lies: in RAM, on nothing else, sizes that divide evenly.

    Each conflict is named with both regions. Exit code 2 when there is one, or no ramoops node, or
    no driver in the kernel.
    """
    from farm.boards.place import faults
    from farm.boards.tree import parse_tree
    from farm.build import devicetree

    seen = _examine(board, base, ram)
    file = overlay_file or Path("devices") / f"{seen.tree.stem}.dtso"
    tree, blob = seen.tree, seen.blob
    if overlay_file is not None or file.is_file():
        try:
            source = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        blob = devicetree.apply_overlay(
            seen.blob, devicetree.compile_overlay(source, file.name), file.name
        )
        tree = parse_tree(blob, seen.tree.source)
    wrong = [
        fault
        for node in tree.ramoops
        for fault in faults(node.area, node.sizes, _examined_memory(tree, seen.facts, ram))
    ]
    if len(tree.ramoops) > 1:
        wrong.append("the kernel takes one of " + ", ".join(one.path for one in tree.ramoops))
    if not tree.ramoops:
        wrong.append(f"{tree.source}: there is no ramoops node")
    drivers = _without_driver(blob, kernel)
    if as_json:
        print(json.dumps({"board": tree.stem, "conflicts": wrong, "without_driver": drivers}))
    else:
        for node in tree.ramoops:
            print(f"{node.area}: {', '.join(f'{k} {v:#x}' for k, v in node.sizes.items())}")
        for one in wrong:
            print(f"conflict: {one}")
        for one in drivers:
            print(f"no driver: {one}")
        if not wrong:
            print(f"{tree.stem}: no conflict; RAM is {seen.memory.ram_source}")
    if wrong or drivers:
        raise typer.Exit(EXIT_CONFLICT)


def _without_driver(blob: bytes, kernel: Path | None) -> list[str]:
    from farm.boards.suppliers import without_driver

    if kernel is None:
        return []
    try:
        image = kernel.read_bytes()
    except OSError as error:
        raise UsageError(f"{kernel} cannot be read: {error.strerror}") from error
    return [
        f"{one.path} ({', '.join(one.compatible)}), which the console depends on"
        for one in without_driver(blob, image)
    ]


def _examined_memory(tree: Any, facts: Any, ram: list[str] | None) -> Any:
    from farm.boards.place import memory_of

    return memory_of(tree, facts, _areas(ram))


@app.command()
def dtb(
    board: Board,
    to: Annotated[Path, typer.Option(help="The file to write.")],
    overlay_file: Annotated[
        Path | None, typer.Option("--overlay", help="Its source; else devices/BOARD.dtso.")
    ] = None,
    base: Base = "6.12",
) -> None:
    """Write a board's device tree blob with its overlay applied."""
    from farm.build import devicetree

    seen = _examine(board, base, None)
    file = overlay_file or Path("devices") / f"{seen.tree.stem}.dtso"
    try:
        source = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} cannot be read: {error}", f"`farm board new {board}` makes one."
        ) from error
    to.write_bytes(
        devicetree.apply_overlay(
            seen.blob, devicetree.compile_overlay(source, file.name), file.name
        )
    )
    print(to)


@app.command()
def image(
    lg_env: Annotated[Path, typer.Option("--lg-env", help="The board, for its `boot_image`.")],
    kernel: Annotated[Path, typer.Option(help="arch/arm64/boot/Image.")],
    ramdisk: Annotated[Path, typer.Option(help="The initramfs, as `farm build` makes one.")],
    dtb_file: Annotated[Path, typer.Option("--dtb", help="As `farm board dtb` writes it.")],
    to: Annotated[Path, typer.Option(help="The file to write.")],
) -> None:
    """Pack a boot image as the board's bootloader wants it: `boot_image` of its environment."""
    from farm.build.board_image import read

    to.write_bytes(read(lg_env).pack(kernel, ramdisk, dtb_file))
    print(f"{to}: {to.stat().st_size} bytes")


@app.command()
def sweep(base: Base = "6.12", as_json: AsJson = False) -> None:
    """Find a place for ramoops on every Qualcomm board of the kernel's source; list conflicts.

    A board's own ramoops node that is in conflict is listed with both regions, and with where
    ramoops goes instead.
    """
    from farm.boards.survey import survey
    from farm.build import kernel_trees

    linux = kernel_trees.unpacked(base, _Bar(f"unpack linux {base}"))
    found = survey(linux, _Bar("boards"))
    if as_json:
        print(json.dumps([one.as_json() for one in found], indent=1))
        return
    for one in found:
        for conflict in one.conflicts:
            print(f"{one.board}: {conflict}")
        if one.conflicts:
            print(f"{one.board}: " + (f"instead {one.place}" if one.place else "no place"))
    placed = [one for one in found if one.place]
    clean = [one for one in placed if not one.conflicts]
    print(
        f"{len(found)} boards: {len(clean)} without a conflict, {len(placed) - len(clean)} moved, "
        f"{len(found) - len(placed)} without a place"
    )
