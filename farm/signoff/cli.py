"""The command ``farm signoff``."""

from __future__ import annotations

import gc
import json
import re
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from farm.report.printable import visible
from farm.signoff.seal import sign_bundle, verify_bundle

if TYPE_CHECKING:
    from farm.signoff.clauses import Decision
    from farm.signoff.facts import Facts
    from farm.signoff.policy import SignoffPolicy

__all__ = ["app"]

EXIT_NO_GO = 1
_STYLE = {"MET": "green", "WAIVED": "yellow", "NOT MET": "bold red"}


class _PolicyFirst(TyperGroup):
    """Takes a first argument that is no command for a policy: `farm signoff POLICY.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["decide", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PolicyFirst,
    no_args_is_help=True,
    add_completion=False,
    help="""GO or NO-GO of a release: a policy held against what was run, with the evidence.

    `farm signoff POLICY.yaml` decides and writes a folder that can be verified by itself; `sign`
    signs it, `verify` finds any byte that was changed since, `schema` prints what a policy may
    hold. Exit codes: 0 GO, also a GO that is labelled virtual; 1 NO-GO, or a changed folder;
    2 wrong use or policy; 3 the disk failed.""",
)


def _facts(policy: SignoffPolicy, nights: Path, history: str | None, stack: ExitStack) -> Facts:
    from farm.history import open_history
    from farm.signoff.facts import HistoryFacts, facts_of_folder

    kernels = [policy.kernel, *([policy.growth.baseline] if policy.growth else [])]
    if history is None:
        return facts_of_folder(nights)
    opened = stack.enter_context(open_history(history, out=nights))
    return HistoryFacts(opened, nights, kernels)


def _print(policy: SignoffPolicy, decision: Decision, out: Path) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("clause", "", "found"):
        table.add_column(column)
    for one in decision.clauses:
        found = Text(visible(one.found))
        for problem in one.problems[:5]:
            names = (problem.board, problem.scenario, problem.channel, problem.driver)
            where = " ".join(visible(name) for name in names if name)
            forgiven = f" (waived by {visible(problem.waiver.owner)})" if problem.waiver else ""
            found.append(f"\n- {where + ': ' if where else ''}{visible(problem.what)}{forgiven}")
        if len(one.problems) > 5:
            found.append(f"\n- and {len(one.problems) - 5} more")
        table.add_row(one.name, Text(one.word, _STYLE[one.word]), found)
    console.print(table)
    for waiver in decision.unused_waivers:
        console.print(Text(f"unused waiver: {waiver.clause}, of {visible(waiver.owner)}"))
    style = "bold green" if decision.go else "bold red"
    console.print(Text.assemble((decision.label, style), f"  {visible(policy.name)}"))
    console.print(Text(f"Sign-off: {out / 'signoff.html'}"), soft_wrap=True)


@app.command("decide")
def decide_command(
    policy_file: Annotated[
        Path, typer.Argument(metavar="POLICY.yaml", help="The policy; see policies/.")
    ],
    nights: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where nights and runs lie: one of them or many."),
    ] = Path("reports"),
    history: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this history instead of reading every run; the runs lie below --nights.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write: by default below --nights."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Sign at once with this SSH key (or its .pub, if an agent has it)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print signoff.json instead of a table.")
    ] = False,
) -> None:
    """Decide, and write the sign-off; `farm signoff POLICY.yaml` is short for this."""
    # A hundred thousand cycles are kept to the end: looking through them for garbage costs a third.
    gc.disable()
    # Not at the top: verifying a bundle needs none of it.
    from farm.export.names import slug
    from farm.signoff.bundle import write_bundle
    from farm.signoff.clauses import decide
    from farm.signoff.policy import read_policy
    from farm.signoff.printer import Printer
    from farm.signoff.provenance import file_sha256, hashes_of

    policy = read_policy(policy_file)
    now = datetime.now(UTC)
    if out is None:
        out = nights / "signoffs" / f"{slug(policy.name)}-{now:%Y%m%d-%H%M%S}"
    artifacts = {name: file_sha256(path) for name, path in policy.artifacts.items()}
    with ExitStack() as stack:
        printer = stack.enter_context(Printer())
        progress = stack.enter_context(
            Progress(console=Console(stderr=True), transient=True, disable=as_json)
        )
        task = progress.add_task("reading what was run", total=None)
        facts = _facts(policy, nights, history, stack)
        decision = decide(policy, facts, now.date(), artifacts)
        stored = [facts.hashes.get(build, {}) for build in decision.build_ids]
        hashes = hashes_of(stored[0] if len(stored) == 1 else {}, artifacts)
        decision.notes += [
            f"{name} cannot be read and counts for nothing: {why}"
            for name, why in facts.unreadable.items()
        ]
        progress.update(
            task, description="copying evidence", total=len(decision.cited_ids()), completed=0
        )
        write_bundle(
            policy,
            policy_file,
            decision,
            out,
            hashes=hashes,
            source=facts.source,
            key=key,
            printer=printer,
            done=lambda: progress.advance(task),
        )
    if as_json:
        print((out / "signoff.json").read_text(encoding="utf-8"), end="")
    else:
        _print(policy, decision, out)
    raise typer.Exit(0 if decision.go else EXIT_NO_GO)


@app.command("sign")
def sign_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `farm signoff` wrote.")],
    key: Annotated[Path, typer.Option(help="An SSH key (or its .pub, if an agent has it).")],
) -> None:
    """Sign a sign-off, if it is unchanged since it was written."""
    sign_bundle(folder, key)
    print(f"signed {folder}")


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `farm signoff` wrote.")],
    allowed_signers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Who may sign: ALLOWED SIGNERS of ssh-keygen(1), from elsewhere."
        ),
    ] = None,
    signer: Annotated[
        str | None, typer.Option(help="The identity that must have signed; by default any of them.")
    ] = None,
    hashes_only: Annotated[
        bool,
        typer.Option("--hashes-only", help="Check no signature: finds accidents, not intent."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Find every file that was changed, added, removed or renamed since it was signed."""
    if (allowed_signers is None) != hashes_only:
        raise typer.BadParameter("give either --allowed-signers FILE or --hashes-only")
    by, changes = verify_bundle(folder, allowed_signers, signer)
    if as_json:
        said: dict[str, Any] = {
            "verified": not changes,
            "signer": by,
            "changes": [{"path": visible(one.path), "what": one.what} for one in changes],
        }
        print(json.dumps(said, indent=1))
    else:
        for one in changes:
            print(f"{visible(one.path)}: {visible(one.what)}")
        if changes:
            print(f"NOT as it was signed: {len(changes)} findings")
        elif by:
            print(f"verified: every byte is as {visible(by)} signed it")
        else:
            print("every file is as the manifest says; who wrote that is not known")
        decision = _decision_of(folder)
        if decision and not changes:
            print(f"it says: {decision}")
    raise typer.Exit(EXIT_NO_GO if changes else 0)


def _decision_of(folder: Path) -> str:
    try:
        account = json.loads((folder / "signoff.json").read_bytes())
        return re.sub(r"[^\w (),-]", "?", str(account["decision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of a policy."""
    from farm.signoff.policy import policy_schema

    print(json.dumps(policy_schema(), indent=1))
