"""The direction of imports: data flows one way, and so do imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each room may import of the farm. A room that is not listed here may not exist.
ALLOWED: dict[str, frozenset[str]] = {
    "farm": frozenset(),
    "farm.errors": frozenset({"farm"}),
    "farm.signals": frozenset({"farm"}),
    "farm.model": frozenset({"farm", "farm.errors"}),
    "farm.scenarios": frozenset({"farm", "farm.errors", "farm.model"}),
    "farm.yaml_file": frozenset({"farm", "farm.errors"}),
    "farm.formats": frozenset({"farm", "farm.errors"}),
    "farm.qualcomm": frozenset({"farm", "farm.errors"}),
    "farm.build": frozenset({"farm", "farm.errors", "farm.signals", "farm.yaml_file"}),
    "farm.virtual": frozenset({"farm", "farm.errors", "farm.signals"}),
    "farm.boards": frozenset({"farm", "farm.errors", "farm.yaml_file", "farm.build"}),
    "farm.decode": frozenset({"farm", "farm.errors", "farm.formats"}),
    "farm.bench": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.yaml_file",
            "farm.model",
            "farm.scenarios",
            "farm.formats",
            "farm.qualcomm",
        }
    ),
    "farm.hosts": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.yaml_file",
            "farm.signals",
            "farm.model",
            "farm.bench",
            "farm.scenarios",
        }
    ),
    "farm.judge": frozenset({"farm", "farm.errors", "farm.model", "farm.formats"}),
    "farm.history": frozenset({"farm", "farm.errors", "farm.model", "farm.judge"}),
    "farm.report": frozenset(
        {"farm", "farm.errors", "farm.model", "farm.formats", "farm.judge", "farm.history"}
    ),
    "farm.export": frozenset({"farm", "farm.errors", "farm.model", "farm.judge", "farm.report"}),
    "farm.signoff": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.yaml_file",
            "farm.model",
            "farm.judge",
            "farm.report",
            "farm.export",
            "farm.history",
        }
    ),
    "farm.run": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.signals",
            "farm.model",
            "farm.scenarios",
            "farm.formats",
            "farm.build",
            "farm.bench",
            "farm.hosts",
            "farm.judge",
            "farm.history",
            "farm.report",
            "farm.export",
        }
    ),
    "farm.nightly": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.signals",
            "farm.yaml_file",
            "farm.model",
            "farm.scenarios",
            "farm.build",
            "farm.bench",
            "farm.hosts",
            "farm.judge",
            "farm.history",
            "farm.run",
            "farm.report",
            "farm.export",
        }
    ),
    "farm.top": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.model",
            "farm.judge",
            "farm.report",
            "farm.hosts",
            "farm.nightly",
        }
    ),
    "farm.doctor": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.model",
            "farm.formats",
            "farm.build",
            "farm.bench",
            "farm.judge",
        }
    ),
    "farm.pytest_plugin": frozenset(
        {
            "farm",
            "farm.errors",
            "farm.model",
            "farm.scenarios",
            "farm.bench",
            "farm.hosts",
            "farm.run",
            "farm.report",
            "farm.export",
        }
    ),
    # The command reaches its rooms by name, when one is used.
    "farm.cli": frozenset({"farm", "farm.errors"}),
}

# Decoding, judging and reporting know no board.
NO_BENCH = (
    "farm.errors",
    "farm.model",
    "farm.formats",
    "farm.decode",
    "farm.judge",
    "farm.history",
    "farm.report",
    "farm.export",
    "farm.signoff",
)
# Protocols speak to a transport; labgrid is the bench's.
NO_LABGRID = ("farm.qualcomm", "farm.virtual")
BENCH_LIBRARIES = frozenset({"labgrid", "serial", "usb", "pexpect"})


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports_of(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            module = node.module or ""
            if module == "farm":
                # `from farm import errors` names a room, `from farm import __version__` does not
                for alias in node.names:
                    room = f"farm.{alias.name}"
                    found.add(room if room in ALLOWED else "farm")
            else:
                found.add(module)
    return found


def violations(module: str, source: str) -> list[str]:
    """Return what ``module`` with text ``source`` imports against the direction."""
    room = room_of(module)
    if room not in ALLOWED:
        return [f"{module}: the room {room} is not in the list of rooms"]
    wrong = []
    for name in sorted(imports_of(source)):
        if name.split(".")[0] == "farm" and room_of(name) not in ALLOWED[room] | {room}:
            wrong.append(f"{module} imports {name}")
        if room in NO_BENCH and name.split(".")[0] in BENCH_LIBRARIES:
            wrong.append(f"{module} imports {name}")
        if room in NO_LABGRID and name.split(".")[0] == "labgrid":
            wrong.append(f"{module} imports {name}")
    return wrong


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "farm").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append((name, path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_imports_point_one_way(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("farm.formats.record", "from farm.judge import judge"),
        ("farm.judge.rules", "import labgrid.driver"),
        ("farm.bench.console", "from farm import virtual"),
        ("farm.run.session", "from farm.virtual.board import Board"),
        ("farm.qualcomm.sahara", "from farm.virtual import usb_device"),
        ("farm.virtual.sahara_device", "from farm.qualcomm.sahara import Hello"),
        ("farm.qualcomm.usb", "import labgrid"),
        ("farm.kitchen.sink", "import os"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations(module, source) != []


def test_pyserial_is_never_listed() -> None:
    """It would overwrite the module that labgrid's own fork installs."""
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        assert not line.strip().startswith(('"pyserial>', '"pyserial"', '"pyserial=')), line
