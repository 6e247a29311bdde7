"""``farm nightly``: the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import UsageError, masked


def nightly(
    plan: Annotated[
        Path | None, typer.Argument(help="The plan, a YAML file.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where nights/NIGHT-ID/ is made, and the history lies.")
    ] = Path("reports"),
    history: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The history, for example postgresql://USER@HOST/NAME. "
            "[default: $PANIC_FARM_HISTORY, or history.sqlite in --out]",
        ),
    ] = None,
    coordinator: Annotated[
        str,
        typer.Option(
            envvar="LG_COORDINATOR",
            metavar="HOST:PORT",
            help="labgrid's coordinator, for a plan that chooses places.",
        ),
    ] = "",
    devices: Annotated[
        Path, typer.Option(help="The descriptions of the boards that places name.")
    ] = Path("devices"),
    only_below: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For a plan that is not yours: it may name environments and images below DIR "
            "only, and no patches, so that it runs nothing of its own here.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="NIGHT-ID", help="Go on with this night, however long ago it was left."
        ),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Begin a new night, even if one was left unfinished.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be run, in which order."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print night.json, or the order, instead of a summary.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a plan, and end.")
    ] = False,
) -> None:
    """Run a night: kernels, boards, scenarios and channels of a plan, boards side by side.

    A plan in its smallest form, and all that it may say, paths relative to its folder:

    \b
        name: all boards
        boards:
          - devices/virtual.yaml
          - {tags: {soc: qcm2290}, features: \\[sahara]}   # places of a coordinator
        wait: 30m                         # for a place that somebody has
    \b
        kernels:
          - default                       # what `farm build` makes for the board
          - {name: fix, patches: \\[fix.patch], base: '6.12', variant: debug}
          - {name: old, boot_image: boot.img, vmlinux: vmlinux}
        scenarios: \\[quick, 'lkdtm-*']     # as `farm run --scenario`
        channels: \\[pstorefs, 'pstorefs,sahara']   # sets, each read in one panic
        repeats: 2
        flash: fastboot                   # edl; none: boards boot what they have
        retries: 1                        # after an ERROR only; every attempt is kept
        budget: 6h                        # the most informative cycles come first
        set_aside: {after: 3, training: 3, scenario: sysrq-c}
        policy: {required: \\[my-driver]}   # on top of the boards' own

    A night that was left, by Ctrl-C, a kill or a power cut, is taken up by the same command when
    the plan is the same and less than 18 hours have passed. No finished cycle is run again.

    Exit code: 0 all PASS; 1 a FAIL (the kernel); 2 wrong use or configuration; 3 no FAIL but an
    ERROR (the bench), a board set aside, a place left out, an interruption, or nothing that could
    be tested. What the budget leaves for another night, and what a board cannot do, are holes and
    change no exit code.
    """
    from farm.nightly.plan import schema as plan_schema

    if schema:
        print(json.dumps(plan_schema(), indent=2))
        return
    if plan is None:
        raise UsageError("farm nightly wants a plan", "See `farm nightly --help`.")
    if new and resume:
        raise UsageError("--new and --resume contradict each other")
    # labgrid, numpy and the database take their time to load: `--help` must not wait for them.
    from farm.judge.totals import exit_code
    from farm.nightly.controller import exit_verdict
    from farm.nightly.night import Options, preview, work
    from farm.nightly.summary import print_night, print_preview

    options = Options(
        plan=plan,
        out=out,
        history=history,
        resume=resume,
        new=new,
        quiet=quiet,
        command=("farm", *map(masked, sys.argv[1:])),
        coordinator=coordinator,
        devices=devices,
        only_below=only_below,
    )
    if dry_run:
        print_preview(preview(options), as_json=as_json)
        return
    night, files = work(options)
    if as_json:
        print(night.model_dump_json(indent=1))
    else:
        print_night(night)
    for file in files:
        print(f"Night: {file}", file=sys.stderr if as_json else sys.stdout)
    verdict, gaps = exit_verdict(night)
    raise typer.Exit(exit_code(verdict, unfinished=gaps))
