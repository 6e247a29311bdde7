"""``farm virtual``: the commands."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.errors import UsageError
from farm.virtual import lifecycle
from farm.virtual.control import ask, follow
from farm.virtual.events import read_events
from farm.virtual.flip import FlipRequest, parse_at
from farm.virtual.layout import BoardDir, board_dirs
from farm.virtual.options import (
    DEFAULT_MEMORY_MIB,
    DEFAULT_NAME,
    LONG_PRESS_S,
    BoardOptions,
    checked,
    resolve_images,
)
from farm.virtual.personality import Personality
from farm.virtual.status import BoardStatus, Presence

EXIT_DOWN = 1
EXIT_LOST = 3
_LONGER_S = 0.3

app = typer.Typer(
    help="Virtual boards: QEMU behind a serial line and a power port, as on a bench.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
fault = typer.Typer(help="Switch faults of a board on and off.", no_args_is_help=True)
app.add_typer(fault, name="fault")

Name = Annotated[str, typer.Option("--name", help="The board's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_status(board: BoardStatus, *, as_json: bool) -> None:
    if as_json:
        print(board.model_dump_json(indent=2))
        return
    if board.state is Presence.DOWN:
        print(f"{board.name}: down")
        return
    words = [f"{board.name}: {board.state.value}"]
    if board.state is Presence.UP:
        words.append(f"power {'on' if board.relay_on else 'off'}, {board.condition.value}")
        words.append(f"serial {board.serial_url}, power {board.power_host} index 0")
        words.append(
            f"usb {board.usb_path} serial number {board.usb_serial}, "
            f"fastboot tcp:localhost:{board.fastboot_port}"
        )
    words += [board.message] if board.message else []
    words += [f"faults: {', '.join(board.faults)}"] if board.faults else []
    print("\n  ".join(words))


def _running(name: str) -> BoardDir:
    board = BoardDir.of(name)
    if not board.daemon_alive():
        raise UsageError(f"board {name} is not up", f"Run `farm virtual up --name {name}` first.")
    return board


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    ecc_size: Annotated[
        int | None, typer.Option(help="ramoops ECC: bytes of parity per block of 128; 0: none.")
    ] = None,
    append: Annotated[str, typer.Option(help="More kernel boot arguments.")] = "",
    baud: Annotated[int | None, typer.Option(help="Pace the serial output like a line.")] = None,
    serial_port: Annotated[int | None, typer.Option(help="TCP port of the serial line.")] = None,
    power_port: Annotated[int | None, typer.Option(help="TCP port of the power port.")] = None,
    fastboot_port: Annotated[
        int | None, typer.Option(help="TCP port of the bootloader's fastboot.")
    ] = None,
    personality: Annotated[
        Personality, typer.Option(help="Whose bootloader it is like.")
    ] = Personality.LK2ND,
    base: Annotated[str, typer.Option(help="Boot what `farm build --base BASE` made last.")] = "",
    variant: Annotated[
        str, typer.Option(help="Boot what `farm build --variant VARIANT` made last.")
    ] = "",
    image_dir: Annotated[Path | None, typer.Option(help="A product of `farm build`.")] = None,
    kernel: Annotated[Path | None, typer.Option(help="Kernel image.")] = None,
    initrd: Annotated[Path | None, typer.Option(help="Initial file system.")] = None,
    dtb: Annotated[Path | None, typer.Option(help="Device tree.")] = None,
    memory_mib: Annotated[int, typer.Option(help="DRAM in MiB.")] = DEFAULT_MEMORY_MIB,
    cpus: Annotated[int, typer.Option(help="Processors.")] = 2,
    on: Annotated[
        bool | None,
        typer.Option("--on/--off", help="Switch power too; a new board is off otherwise."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a board on the bench; success if it is there already, with the same options."""
    options = checked(
        BoardOptions,
        name=name,
        ecc_size_bytes=ecc_size,
        append=append,
        baud=baud,
        serial_port=serial_port,
        power_port=power_port,
        fastboot_port=fastboot_port,
        personality=personality,
        memory_mib=memory_mib,
        cpus=cpus,
        **resolve_images(image_dir, kernel, initrd, dtb, base=base, variant=variant),
    )
    result = lifecycle.up(options)
    board = result.status
    if on is not None and board.relay_on != on:
        board = BoardStatus.model_validate(ask(BoardDir.of(name), "power", on=on))
    if not as_json:
        if result.was_lost:
            print(f"{name} was lost: it starts afresh, what was in its DRAM is gone")
        elif result.already:
            print(f"{name} was up already")
    _print_status(board, as_json=as_json)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="The new board's name, as virtual-3.")],
    to: Annotated[
        Path | None, typer.Option(help="The file to write; by default devices/NAME.yaml.")
    ] = None,
    serial_port: Annotated[int | None, typer.Option(help="TCP port of the serial line.")] = None,
    power_port: Annotated[int | None, typer.Option(help="TCP port of the power port.")] = None,
) -> None:
    """Write the labgrid environment of one more virtual board, for plans with several.

    Without ports, two are chosen that no environment beside it names and nobody listens on.
    """
    from farm.virtual.describe import environment_text, free_ports, template

    BoardDir.of(name)
    file = to or template().with_name(f"{name}.yaml")
    if file.exists():
        raise UsageError(
            f"{file} exists already", "Choose another name, or another file with --to."
        )
    chosen = free_ports(file.parent)
    text = environment_text(name, serial_port or chosen[0], power_port or chosen[1], file.parent)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    print(file)


@app.command()
def down(
    name: Name = DEFAULT_NAME,
    everything: Annotated[bool, typer.Option("--all", help="Every board.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a board off the bench, or clean up after a lost one."""
    names = [board.name for board in board_dirs()] if everything else [name]
    was_up = {each: lifecycle.down(each) for each in names}
    if as_json:
        print(json.dumps(was_up, indent=2))
        return
    for each, was in was_up.items():
        print(f"{each}: {'down' if was else 'was not up'}")


@app.command("list")
def list_boards(as_json: AsJson = False) -> None:
    """List the boards that are up or lost."""
    boards = lifecycle.statuses()
    if as_json:
        print(json.dumps([board.model_dump(mode="json") for board in boards], indent=2))
        return
    for board in boards:
        _print_status(board, as_json=False)


@app.command()
def status(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Tell what a board is; exit code 0 up, 1 down, 3 lost or dead."""
    board = lifecycle.status(name)
    _print_status(board, as_json=as_json)
    if board.is_lost:
        raise typer.Exit(EXIT_LOST)
    if board.state is Presence.DOWN:
        raise typer.Exit(EXIT_DOWN)


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(event), flush=True)
        return
    fields = [
        f"{key}={','.join(value) if isinstance(value, list) else value}"
        for key, value in event.items()
        if key not in ("time", "monotonic_s", "event") and value is not None
    ]
    print(" ".join([event["time"], event["event"], *fields]), flush=True)


@app.command()
def events(
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
    follow_: Annotated[
        bool, typer.Option("--follow", help="Go on until the board goes down.")
    ] = False,
) -> None:
    """Print what happened to a board: power, resets, boots, BREAKs, faults; one line each."""
    board = BoardDir.of(name)
    source = follow(_running(name)) if follow_ else iter(read_events(board.events))
    for event in source:
        _print_event(event, as_json=as_json)


def _fault(name: str, command: str, *, as_json: bool, **fields: Any) -> None:
    answer = BoardStatus.model_validate(ask(_running(name), command, **fields))
    _print_status(answer, as_json=as_json)


@fault.command()
def flip(
    name: Name = DEFAULT_NAME,
    bits: Annotated[int, typer.Option(help="How many bits, chosen by the seed.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same bits.")] = None,
    region: Annotated[
        str, typer.Option(help="panicdump, another zone, ramoops, or PADDR+LENGTH.")
    ] = "panicdump",
    max_per_block: Annotated[
        int | None, typer.Option(help="At most so many bytes hit per ECC block.")
    ] = None,
    used_only: Annotated[
        bool, typer.Option("--used-only", help="Only what the zone's header says is used.")
    ] = False,
    at: Annotated[
        list[str] | None,
        typer.Option(help="BYTE:BIT: a physical address, or +OFFSET into the region."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Flip bits of the DRAM in the next warm reset, once."""
    wanted: dict[str, Any] = {} if seed is None else {"seed": seed}
    request = checked(
        FlipRequest,
        bits=bits,
        region=region,
        max_per_block=max_per_block,
        used_only=used_only,
        at=tuple(parse_at(text) for text in at or ()),
        **wanted,
    )
    _fault(name, "flip", flip=request.model_dump(mode="json"), as_json=as_json)


@fault.command()
def silence(
    on: Annotated[str, typer.Argument(metavar="on|off")] = "on",
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Swallow the board's serial output, or no longer."""
    if on not in ("on", "off"):
        raise UsageError(f"silence {on!r}: say on or off")
    _fault(name, "silence", on=on == "on", as_json=as_json)


@fault.command()
def hang(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Let the processors hang after the next warm reset, until power is cycled."""
    _fault(name, "hang", as_json=as_json)


@app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def execute(
    command: Annotated[list[str], typer.Argument(help="A program and its arguments.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Show this board alone; all of them otherwise.")
    ] = None,
) -> None:
    """Run a program that sees the boards' USB devices: `farm virtual exec -- fastboot devices`."""
    from farm.virtual.usb_bus import environment

    try:
        os.execvpe(command[0], command, os.environ | environment(name))
    except OSError as error:
        raise UsageError(f"cannot run {command[0]}: {error.strerror}") from error


@app.command("environment")
def show_environment(
    name: Annotated[
        str | None, typer.Option("--name", help="Show this board alone; all of them otherwise.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the variables that let a program see the boards' USB devices."""
    from farm.virtual.usb_bus import environment

    variables = environment(name)
    if as_json:
        print(json.dumps(variables))
        return
    for key, value in variables.items():
        print(f"{key}={value}")


@app.command()
def press(
    button: Annotated[str, typer.Argument(metavar="fastboot|edl|power")],
    how: Annotated[str, typer.Argument(metavar="on|off|short|long")] = "on",
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Hold a key or strap down (on), or let go (off).

    `fastboot` and `edl` count when the board starts. `power` is the PMIC's key: a `short` press
    starts a board that has switched itself off, a `long` one switches the board off, whatever runs.
    """
    ways = ("on", "off", "short", "long") if button == "power" else ("on", "off")
    if button not in ("fastboot", "edl", "power") or how not in ways:
        raise UsageError(
            f"press {button} {how}: say fastboot or edl and on or off, "
            "or power and on, off, short or long"
        )
    if how in ("short", "long"):
        ask(_running(name), "press", button=button, on=True)
        if how == "long":
            time.sleep(LONG_PRESS_S + _LONGER_S)
    _fault(name, "press", button=button, on=how == "on", as_json=as_json)


@app.command("boot-with")
def boot_with(
    append: Annotated[str, typer.Argument(help="More kernel boot arguments.")] = "",
    ecc_size: Annotated[
        int, typer.Option(help="ramoops ECC, as of `up`; -1: as the board was brought up.")
    ] = -1,
    boots: Annotated[int, typer.Option(min=0, help="For so many boots; 0: no longer.")] = 1,
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Let the next boots differ, as a boot loader's one-time entry does."""
    if ecc_size > 255:
        raise UsageError(f"--ecc-size {ecc_size}: 255 at most")
    ecc = None if ecc_size < 0 else ecc_size
    _fault(name, "boot-with", append=append, ecc_size_bytes=ecc, boots=boots, as_json=as_json)


@app.command()
def reset(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Reset the chip, as its reset line does: the memory stays."""
    _fault(name, "reset", as_json=as_json)


@fault.command("usb")
def usb_fault(
    which: Annotated[str, typer.Argument(help="missing-zlp, short-reads, unplug-at, ...")],
    value: Annotated[str, typer.Argument(help="on, off or a number.")] = "on",
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Switch a fault of the boot programs' USB."""
    _fault(name, "usb", fault=which, value=value, as_json=as_json)


@fault.command("stuck-relay")
def stuck_relay(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Let the power port accept commands that have no effect."""
    _fault(name, "stuck-relay", as_json=as_json)


@fault.command()
def clear(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Take all faults away; a hung board goes on."""
    _fault(name, "clear", as_json=as_json)
