"""Reading files that others wrote: bytes, JSON, and fields that are named when they are wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from backtal.errors import InvalidFile, NotFound


def read_bytes(path: Path) -> bytes:
    """Read a file whole. Raises NotFound, or InvalidFile for a folder."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except IsADirectoryError:
        raise InvalidFile(f"{path} is a folder, expected a file") from None


def parse_json_object(content: bytes, source: str) -> dict[str, Any]:
    """The object that JSON bytes hold, with or without a byte-order mark. Raises InvalidFile."""
    try:
        document = json.loads(content.decode("utf-8-sig"))
    # RecursionError: brackets nested deeper than the parser can go.
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{source} is no JSON: {error}") from None
    return expect_object(document, source)


def expect_object(value: Any, where: str) -> dict[str, Any]:
    """`value`, which must be a JSON object. Raises InvalidFile."""
    if not isinstance(value, dict):
        raise InvalidFile(f"{where} is {value!r:.80}, expected an object")
    return value


def expect_list(value: Any, where: str) -> list[Any]:
    """`value`, which must be a JSON list. Raises InvalidFile."""
    if not isinstance(value, list):
        raise InvalidFile(f"{where} is {value!r:.80}, expected a list")
    return value


def expect_text(value: Any, where: str) -> str:
    """`value`, which must be a text that is not empty. Raises InvalidFile."""
    if not isinstance(value, str) or not value:
        raise InvalidFile(f"{where} is {value!r:.80}, expected a text")
    return value


def expect_number(value: Any, where: str) -> float:
    """`value`, which must be a finite number. Raises InvalidFile."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFile(f"{where} is {value!r:.80}, expected a number")
    if not _is_finite(value):
        raise InvalidFile(f"{where} is {value!r:.80}, expected a finite number")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    # JSON's whole numbers have no bound, floats have.
    except OverflowError:
        return False


def expect_interval(value: Any, where: str) -> tuple[float, float]:
    """Start and end, in seconds, the end not before the start. Raises InvalidFile."""
    pair = expect_list(value, where)
    if len(pair) != 2:
        raise InvalidFile(f"{where} is {value!r:.80}, expected a start and an end")
    start, end = expect_number(pair[0], where), expect_number(pair[1], where)
    if end < start:
        raise InvalidFile(f"{where} is {value!r:.80}, which ends before it starts")
    return start, end
