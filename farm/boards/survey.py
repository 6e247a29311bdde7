"""Every Qualcomm board of a kernel's source: is there a place for ramoops, and what conflicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farm.boards.chips import facts_of
from farm.boards.overlay import source as overlay_source
from farm.boards.place import Place, faults, find_place, memory_of
from farm.boards.tree import parse_tree
from farm.build.devicetree import apply_overlay, compile_overlay
from farm.build.kernel_trees import all_blobs, sources


@dataclass(frozen=True)
class Surveyed:
    """A board: ``place`` is where ramoops goes and why, empty when nowhere.

    ``conflicts`` are those of the tree's own ramoops nodes and, without a place, of every other
    candidate.
    """

    board: str
    place: str
    conflicts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def survey(linux: Path, progress: Callable[[int, int], None]) -> list[Surveyed]:
    """Compile every board's tree, place ramoops, apply the overlay and check what comes out."""
    total = len(sources(linux))
    found = []
    for done, (file, blob) in enumerate(all_blobs(linux), start=1):
        found.append(examine(blob, file.with_suffix(".dtb")))
        progress(done, total)
    return found


def examine(blob: bytes, source: Path) -> Surveyed:
    """Survey one board by its blob; raises BuildError when its overlay does not apply."""
    tree = parse_tree(blob, source)
    facts = facts_of(tree)
    memory = memory_of(tree, facts)
    own = [
        fault for node in tree.ramoops for fault in faults(node.area, {}, memory, is_our_own=False)
    ]
    place = find_place(tree, memory, facts)
    if not isinstance(place, Place):
        return Surveyed(tree.stem, "", tuple(dict.fromkeys([*own, *place])))
    text = overlay_source(tree, place)
    whole = parse_tree(apply_overlay(blob, compile_overlay(text, tree.stem), tree.stem), source)
    after = memory_of(whole, facts)
    left = [fault for node in whole.ramoops for fault in faults(node.area, node.sizes, after)]
    if len(whole.ramoops) != 1:
        left.append(f"{len(whole.ramoops)} ramoops nodes after the overlay")
    return Surveyed(
        tree.stem, "" if left else f"{place.area}: {place.why}", tuple(dict.fromkeys([*own, *left]))
    )
