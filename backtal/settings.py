"""The base of everything that is configured or described: frozen, typed, unknown keys refused."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from backtal.errors import InvalidFile, NotFound


class Settings(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SettingsType = TypeVar("SettingsType", bound=Settings)


def read_json(kind: type[SettingsType], path: Path) -> SettingsType:
    """Read a JSON file into `kind`. Raises NotFound, or InvalidFile by key and value."""
    try:
        return parse(kind, json.loads(_read(path)), source=str(path))
    except json.JSONDecodeError as error:
        raise InvalidFile(f"{path} is no JSON: {error}") from None


def read_yaml(kind: type[SettingsType], path: Path) -> SettingsType:
    """Read a YAML file into `kind`. Raises NotFound, or InvalidFile by key and value."""
    try:
        return parse(kind, yaml.safe_load(_read(path)), source=str(path))
    except yaml.YAMLError as error:
        raise InvalidFile(f"{path} is no YAML: {error}") from None


def parse(kind: type[SettingsType], raw: Any, *, source: str) -> SettingsType:
    """Validate plain data; an unknown key is refused with the nearest known one."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, problem) for problem in error.errors()]
        raise InvalidFile(f"{source}: " + "; ".join(lines)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InvalidFile(f"{path} is no text: {error}") from None


def _explain(kind: type[BaseModel], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where or kind.__name__}: {problem['msg']}, got {problem['input']!r}"
    known = sorted(_all_keys(kind))
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {where}{hint}"


def _all_keys(kind: type[BaseModel]) -> set[str]:
    keys = set(kind.model_fields)
    for field in kind.model_fields.values():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys |= _all_keys(annotation)
    return keys
