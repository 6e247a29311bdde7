"""Names and fields of registers, from a small YAML file for each device.

    driver: uart-pl011            # or device: a name; both may have * and ?
    regions:
      uart:
        0x18: {name: FR, fields: {BUSY: 3, RXFE: 4, TXFF: 5}}
        0x30: {name: CR, fields: {UARTEN: 0, LOOP: "7", BAUD: "15:8"}}
        0x24: IBRD

Offsets are those of the hardware, from the beginning of the region. A field is a bit, or a range of
bits as "high:low".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from farm.errors import UsageError
from farm.formats.record import Record, Region, RegionKind

__all__ = ["RegisterMaps", "RegisterValue", "load_maps"]

_RANGE = re.compile(r"(\d{1,2}):(\d{1,2})")


class _Register(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fields: dict[str, tuple[int, int]] = Field(default_factory=dict)

    @field_validator("fields", mode="before")
    @classmethod
    def _ranges(cls, value: Any) -> Any:
        return {name: _bits(bits) for name, bits in dict(value).items()}


def _bits(value: Any) -> tuple[int, int]:
    """(high, low) of what a field is given as."""
    text = str(value)
    match = _RANGE.fullmatch(text)
    high, low = (int(match[1]), int(match[2])) if match else (int(text), int(text))
    if not 0 <= low <= high <= 63:
        raise ValueError(f"{text!r} is neither a bit nor high:low")
    return high, low


class _Map(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str = "*"
    device: str = "*"
    regions: dict[str, dict[int, _Register]]

    @field_validator("regions", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {
            region: {
                offset: {"name": one} if isinstance(one, str) else one
                for offset, one in dict(registers).items()
            }
            for region, registers in dict(value).items()
        }


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """A register; `fields` are the values of its named bits, `before` its value earlier."""

    offset: int
    name: str
    value: int
    fields: dict[str, int]
    before: int | None

    @property
    def changed(self) -> bool:
        """Whether the register had another value before."""
        return self.before is not None and self.before != self.value


class RegisterMaps:
    """The maps of several devices, and records from before the panic to compare with."""

    def __init__(self, maps: Sequence[_Map] = (), before: Sequence[Record] = ()) -> None:
        self._maps = tuple(maps)
        self._before = {
            (record.driver, record.device, region.name): region
            for record in before
            for region in record.regions
        }

    def values_of(self, record: Record, region: Region) -> Iterator[RegisterValue]:
        """The registers of a region that a map names, or that have changed."""
        if region.kind is not RegionKind.REGISTERS or not region.width_bytes:
            return
        named = self._named(record, region)
        earlier = self._before.get((record.driver, record.device, region.name))
        if named is None and earlier is None:
            return
        width, stride = region.width_bytes, region.stride_bytes
        for number in range(len(region.data) // width):
            offset = number * stride
            value = int.from_bytes(region.data[number * width :][:width], "little")
            known = (named or {}).get(offset)
            before = None
            if earlier is not None and len(earlier.data) >= (number + 1) * width:
                before = int.from_bytes(earlier.data[number * width :][:width], "little")
            if known is None and (before is None or before == value):
                continue
            fields = {
                name: value >> low & (1 << high - low + 1) - 1
                for name, (high, low) in (known.fields if known else {}).items()
            }
            name = known.name if known else f"+{offset:#x}"
            yield RegisterValue(offset, name, value, fields, before)

    def _named(self, record: Record, region: Region) -> dict[int, _Register] | None:
        for one in self._maps:
            if fnmatch.fnmatchcase(record.driver, one.driver) and fnmatch.fnmatchcase(
                record.device, one.device
            ):
                for pattern, registers in one.regions.items():
                    if fnmatch.fnmatchcase(region.name, pattern):
                        return registers
        return None


def load_maps(paths: Sequence[Path], before: Sequence[Record] = ()) -> RegisterMaps:
    """Read maps from YAML files; a file may hold several documents.

    Raises UsageError that names the file and what is wrong in it.
    """
    maps = []
    for path in paths:
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
            maps += [_Map.model_validate(one) for one in documents if one is not None]
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UsageError(f"{path}: {where}: {error.errors()[0]['msg']}") from error
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise UsageError(f"{path} is no register map: {error}") from error
    return RegisterMaps(maps, before)
