"""README and docs: links lead somewhere, commands exist, and what is to be copied works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from farm.cli import _COMMANDS
from farm.scenarios.scenario import Scenario

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MOST_PICTURE_BYTES = 200 << 10


def anchors_of(page: Path) -> set[str]:
    """The anchors that headings get: lower case, punctuation dropped, spaces as hyphens."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    named = re.findall(r"(?:\.venv/bin/|`)farm ([a-z-]+)", text)
    assert set(named) <= set(_COMMANDS)


def test_every_page_is_reached_from_the_readme() -> None:
    links = _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links}
    assert set(PAGES[1:]) <= reached


def test_the_scenario_to_copy_is_one() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text[text.index("    - name: my-panic") :].split("\n\n")[0]
    (entry,) = yaml.safe_load(block)
    assert Scenario.model_validate({"group": "mine", **entry}).name == "my-panic"


def test_the_picture_is_small() -> None:
    for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).stat().st_size <= _MOST_PICTURE_BYTES
