"""The pass over a dump: nothing is missed where pieces and holes meet."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from farm.decode.landmarks import CHUNK_BYTES, PAGE_BYTES, Place, find_landmarks
from farm.decode.memory import Memory, open_memory
from farm.formats.devicetree import FDT_MAGIC
from farm.formats.memory_table import MAGIC
from farm.formats.ramoops import PANICDUMP_SIGNATURE
from farm.formats.vmcoreinfo import FIRST_WORD

SIZE_BYTES = 13 * CHUNK_BYTES + 3 * PAGE_BYTES + 24
ENTRY = b"\1\0\0\0" + bytes(28) + b"\1\0\0\0" + bytes(4)


@pytest.fixture(autouse=True, params=[2, 64])
def stretches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread takes at once: many of them in this dump, or the whole."""
    monkeypatch.setattr("farm.decode.landmarks._STRETCH_BYTES", request.param * CHUNK_BYTES)


def dump(path: Path, planted: dict[int, bytes], *, base: int | None = None) -> Memory:
    """A file of one hole, but for what is planted."""
    with path.open("wb") as file:
        os.truncate(path, SIZE_BYTES)
        for offset, data in planted.items():
            file.seek(offset)
            file.write(data)
    return open_memory([path], base_paddr=base)


def test_at_every_border(tmp_path: Path) -> None:
    last_page = SIZE_BYTES // PAGE_BYTES * PAGE_BYTES
    borders = [*range(0, SIZE_BYTES, CHUNK_BYTES), last_page]
    pages = sorted({at + step for at in borders for step in (0, PAGE_BYTES)} - {last_page + 4096})
    pages += [at - PAGE_BYTES for at in borders[1:]]
    pages = sorted({at for at in pages if at + PAGE_BYTES <= SIZE_BYTES})
    planted = {at: PANICDUMP_SIGNATURE.to_bytes(4, "little") for at in pages}
    words = [at + 2048 for at in pages] + [at - 16 for at in borders[1:]] + [SIZE_BYTES - 24]
    planted |= dict.fromkeys(words, MAGIC)
    found = find_landmarks(dump(tmp_path / "ram.bin", planted))
    assert found.zones == [Place(0, at) for at in pages]
    assert found.tables == [Place(0, at) for at in sorted(words)]


def test_every_kind_where_it_stands(tmp_path: Path) -> None:
    planted = {
        1 * PAGE_BYTES: FIRST_WORD,
        2 * PAGE_BYTES + 24: FIRST_WORD,
        3 * PAGE_BYTES: FDT_MAGIC,
        4 * PAGE_BYTES + 8: FDT_MAGIC + FIRST_WORD,
        5 * CHUNK_BYTES + 5 * PAGE_BYTES: ENTRY,
    }
    found = find_landmarks(dump(tmp_path / "ram.bin", planted))
    assert found.vmcoreinfo == [Place(0, PAGE_BYTES), Place(0, 2 * PAGE_BYTES + 24)]
    assert found.devicetrees == [Place(0, 3 * PAGE_BYTES)]
    assert found.entries == [Place(0, 5 * CHUNK_BYTES + 5 * PAGE_BYTES)]
    # Who knows where its memory begins need not look for it.
    assert not find_landmarks(dump(tmp_path / "known.bin", planted, base=0)).entries


def test_with_and_without_holes(tmp_path: Path) -> None:
    rng = random.Random(5)
    heads = (MAGIC, FIRST_WORD, FDT_MAGIC, ENTRY, PANICDUMP_SIGNATURE.to_bytes(4, "little"))
    pages = rng.sample(range(SIZE_BYTES // PAGE_BYTES), 300)
    planted = {page * PAGE_BYTES: rng.choice(heads) for page in pages}
    memory = dump(tmp_path / "ram.bin", planted)
    told: list[tuple[int, int]] = []
    found = find_landmarks(memory, lambda done, whole: told.append((done, whole)))
    assert told == sorted(told)
    assert told[-1][0] <= SIZE_BYTES
    for head, places in (
        (MAGIC, found.tables),
        (FIRST_WORD, found.vmcoreinfo),
        (FDT_MAGIC, found.devicetrees),
        (ENTRY, found.entries),
        (heads[-1], found.zones),
    ):
        assert places == [Place(0, at) for at in sorted(planted) if planted[at] == head]
    (tmp_path / "full.bin").write_bytes((tmp_path / "ram.bin").read_bytes())
    assert find_landmarks(open_memory([tmp_path / "full.bin"])) == found
