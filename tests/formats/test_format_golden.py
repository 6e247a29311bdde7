"""Files of golden/ decode to what the JSON beside each of them says.

NAME.bin is the input.  NAME.json says how to read it: `decode` is record, contents (a contents
record), zone (of panicdump) or table, `ecc_size` goes with zone, `origin` tells where the file
comes from; `expect` is compared with the decoded value: an object with its attributes, a list with
each item, an enum with its name, bytes with {"sha256": ...} or {"ascii": ...}, or {"hex": ...}.
Attributes that are not named are not compared.
"""

from __future__ import annotations

import enum
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from farm.formats.contents import decode_contents
from farm.formats.ramoops import decode_panicdump_zone
from farm.formats.record import decode_record
from farm.formats.table import parse_table

GOLDEN = Path(__file__).parent / "golden"


def decoded(data: bytes, what: dict[str, Any]) -> object:
    match what["decode"]:
        case "record":
            return decode_record(data)
        case "contents":
            return decode_contents(decode_record(data).regions[0].data)
        case "zone":
            return decode_panicdump_zone(data, what["ecc_size"])
        case "table":
            return parse_table(data.decode("ascii"))
        case other:
            raise ValueError(f"no decoder {other!r}")


def same(got: Any, expected: Any, path: str) -> None:
    if isinstance(got, bytes):
        if "record" in expected:
            same(decode_record(got), expected["record"], f"{path}.record")
            return
        ways = {
            "sha256": hashlib.sha256(got).hexdigest(),
            "hex": got.hex(),
            "ascii": got.decode("latin-1"),
        }
        ((way, value),) = expected.items()
        assert ways[way] == value, path
    elif isinstance(expected, dict):
        for name, value in expected.items():
            same(getattr(got, name), value, f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), path
        for index, value in enumerate(expected):
            same(got[index], value, f"{path}[{index}]")
    elif isinstance(got, enum.Enum) and isinstance(expected, str):
        assert got.name == expected, path
    else:
        assert got == expected, path


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda path: path.stem)
def test_a_golden_file_decodes_as_its_json_says(path: Path) -> None:
    what = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    same(decoded(path.read_bytes(), what), what["expect"], path.stem)


def test_every_kind_is_there_and_nothing_is_alone() -> None:
    described = {path.stem for path in GOLDEN.glob("*.json")}
    assert described == {path.stem for path in GOLDEN.glob("*.bin")}
    kinds = {
        json.loads(path.read_text(encoding="utf-8"))["decode"] for path in GOLDEN.glob("*.json")
    }
    assert kinds == {"record", "contents", "zone", "table"}
