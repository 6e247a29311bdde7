"""YAML files of the user's, checked against a model: errors name file, line, field, what is wanted.

Lines and columns count from 1, as editors do. The text is composed only for the places of its keys;
nothing in it is run.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from farm.errors import UsageError

__all__ = ["Places", "check", "read_text", "read_yaml"]

_Model = TypeVar("_Model", bound=BaseModel)
_Key = str | int


class Places:
    """Where the keys of a YAML file stand."""

    def __init__(self, file: Path, text: str) -> None:
        """Compose ``text``; raises UsageError naming the line of a fault in its syntax."""
        self.file = file
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            said = " ".join(filter(None, (error.context, error.problem)))
            raise UsageError(f"{file}{place}: this is not YAML: {said}") from error
        except yaml.YAMLError as error:
            raise UsageError(f"{file}: this is not YAML: {error}") from error

    def line(self, path: Sequence[_Key]) -> int | None:
        """The line of the key at ``path``, or of the nearest one above it that there is."""
        node, line = self._root, None
        for key in path:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(key)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
                if not 0 <= key < len(node.value):
                    break
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def error(self, path: Sequence[_Key], what: str) -> str:
        """``what``, with the file, the line and the field before it."""
        line = self.line(path)
        place = f"{self.file}:{line}" if line else str(self.file)
        field = ".".join(map(str, path))
        return f"{place}: {field}: {what}" if field else f"{place}: {what}"


def _model_at(model: type[BaseModel], path: Sequence[_Key]) -> type[BaseModel] | None:
    """The model that the keys at ``path`` belong to, as far as it is told by the fields."""
    for key in path:
        field = model.model_fields.get(str(key))
        if field is None:
            return None
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model


def _complaint(model: type[BaseModel], one: Mapping[str, Any]) -> str:
    """What is wrong and what was expected, of one of pydantic's errors."""
    if one["type"] == "extra_forbidden":
        owner = _model_at(model, one["loc"][:-1])
        known = (
            sorted(field.alias or name for name, field in owner.model_fields.items())
            if (owner is not None)
            else []
        )
        near = difflib.get_close_matches(str(one["loc"][-1]), known, 1)
        said = "there is no such key"
        if near:
            said += f"; did you mean `{near[0]}`?"
        dot = "" if near else "."
        return said + (f"{dot} The keys are: {', '.join(known)}." if known else "")
    if one["type"] == "missing":
        return "this key is missing"
    value = one["input"]
    shown = "" if isinstance(value, dict | list) else f", got {value!r}"
    return f"{one['msg'].removeprefix('Value error, ')}{shown}"


def check(
    model: type[_Model], data: Any, places: Places, below: Sequence[_Key] = (), hint: str = ""
) -> _Model:
    """``data``, which stands ``below`` in its file, as a ``model``; UsageError names each fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = []
        for one in error.errors():
            # A union puts the name of its branch into the place, which is no key of the file.
            loc = [key for key in one["loc"] if not (isinstance(key, str) and " " in key)]
            wrong.append(places.error([*below, *loc], _complaint(model, one)))
        raise UsageError("\n".join(dict.fromkeys(wrong)), hint) from error


def read_text(path: Path) -> str:
    """The text of a file; UsageError when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text at byte {error.start}") from error


def read_yaml(path: Path, model: type[_Model], hint: str = "") -> _Model:
    """Read a YAML file as ``model``; UsageError names the file, the line, the field, and why."""
    text = read_text(path)
    places = Places(path, text)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: this is not YAML: {error}") from error
    return check(model, {} if data is None else data, places, hint=hint)
