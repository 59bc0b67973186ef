"""Search: the segments of an index that answer a query, as an Arrow table.

from backtal_indexing.reading import open_tables
from backtal_indexing.search import Query, search

with open_tables("library.index") as tables:
    found = search(tables, Query(labels=("high jump",), min_score=0.5, limit=50))
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from backtal.errors import InvalidArgument
from backtal_indexing.reading import Tables
from backtal_indexing.schema import SEGMENTS
from backtal_indexing.store import normal_url
from backtal_indexing.uris import file_uri

Order = Literal["score", "length", "start", "video"]
ORDERS: tuple[Order, ...] = get_args(Order)

_ORDER_BY: dict[Order, str] = {
    "score": "score desc, uri, start_seconds, end_seconds, label, bundle",
    "length": "end_seconds - start_seconds desc, uri, start_seconds, label, bundle",
    "start": "start_seconds, uri, end_seconds, label, bundle",
    "video": "uri, start_seconds, end_seconds, label, bundle",
}
_SELECT = "select label, score, start_seconds, end_seconds, uri, bundle, bundle_sha256"
# As many as a sentence holds.
_SHOWN_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is searched for; None or () leaves a thing open.

    Attributes:
        labels: any of these classes.
        min_score, max_score: in [0, 1], both inclusive.
        min_length_seconds, max_length_seconds: of the segment.
        under: a folder or an `s3://` prefix whose videos are meant, or one video.
        bundle: the name of the bundle that found the segments.
        after_seconds, before_seconds: the stretch of a video that the segment lies in.
        order: `score` and `length` fall, `start` and `video` (then start) rise.
        limit: at most so many.

    Raises InvalidArgument, when it is made, for a figure outside its range.
    """

    labels: tuple[str, ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    min_length_seconds: float | None = None
    max_length_seconds: float | None = None
    under: str | None = None
    bundle: str | None = None
    after_seconds: float | None = None
    before_seconds: float | None = None
    order: Order = "score"
    limit: int | None = None

    def __post_init__(self) -> None:
        _check_range("score", self.min_score, self.max_score, most=1.0)
        _check_range("length", self.min_length_seconds, self.max_length_seconds)
        _check_range("time in the video", self.after_seconds, self.before_seconds)
        if self.limit is not None and self.limit < 1:
            raise InvalidArgument(f"a limit of {self.limit}; it must be at least 1")
        if self.order not in ORDERS:
            raise InvalidArgument(f"order {self.order!r}; allowed are {', '.join(ORDERS)}")


def search(tables: Tables, query: Query) -> pa.Table:
    """The segments that answer `query`: a table of schema SEGMENTS.

    Raises InvalidArgument for a label or a bundle that no segment of the index has.
    """
    found = tables.ask(*selection(query))
    check_names(tables, query, found)
    return found.cast(SEGMENTS)


def selection(query: Query) -> tuple[str, list[Any]]:
    """A query in SQL over `segments`, and its parameters."""
    condition, parameters = where(query)
    sql = f"{_SELECT} from segments where {condition} order by {_ORDER_BY[query.order]}"
    if query.limit is not None:
        sql += " limit ?"
        parameters.append(query.limit)
    return sql, parameters


def where(query: Query) -> tuple[str, list[Any]]:
    """The condition of a query in SQL over `segments`, and its parameters."""
    condition, parameters = place(query)
    conditions = [condition]

    def add(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if query.labels:
        add(f"label in ({', '.join('?' * len(query.labels))})", *query.labels)
    # As the column is: 0.9 as a float32 is a little below 0.9 as a float64.
    if query.min_score is not None:
        add("score >= cast(? as float)", query.min_score)
    if query.max_score is not None:
        add("score <= cast(? as float)", query.max_score)
    if query.min_length_seconds is not None:
        add("end_seconds - start_seconds >= ?", query.min_length_seconds)
    if query.max_length_seconds is not None:
        add("end_seconds - start_seconds <= ?", query.max_length_seconds)
    if query.after_seconds is not None:
        add("start_seconds >= ?", query.after_seconds)
    if query.before_seconds is not None:
        add("end_seconds <= ?", query.before_seconds)
    return " and ".join(conditions), parameters


def place(query: Query) -> tuple[str, list[Any]]:
    """What of a query holds for videos too, in SQL, and its parameters."""
    conditions = ["true"]
    parameters: list[Any] = []
    if query.under is not None:
        conditions.append("(uri = ? or starts_with(uri, ?))")
        parameters.extend(_video_and_folder(query.under))
    if query.bundle is not None:
        conditions.append("bundle = ?")
        parameters.append(query.bundle)
    return " and ".join(conditions), parameters


def check_names(tables: Tables, query: Query, found: pa.Table) -> None:
    """Raises InvalidArgument for a label or a bundle that no segment of the index has.

    `found` is what the query gave: what occurs there needs no look.
    """
    seen = set(found["label"].unique().to_pylist())
    for label in query.labels:
        if label not in seen and not _has(tables, "label", label):
            raise unknown_name("label", label, _known(tables, "label"), tables.url)
    if query.bundle is not None and not seen and not _has(tables, "bundle", query.bundle):
        raise unknown_name("bundle", query.bundle, _known(tables, "bundle"), tables.url)


def unknown_name(what: str, name: str, known: Iterable[str], url: str) -> InvalidArgument:
    """The error for a name that the index does not have, with the nearest that it has."""
    names = sorted(known)
    if not names:
        return InvalidArgument(f"{what} {name!r}: {url} has no segments yet")
    by_folded = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    if near:
        hint = f"did you mean {by_folded[near[0]]!r}?"
    else:
        more = ", ..." if len(names) > _SHOWN_NAMES else ""
        hint = f"known are {', '.join(map(repr, names[:_SHOWN_NAMES]))}{more}"
    return InvalidArgument(f"no segment of {url} has the {what} {name!r}; {hint}")


def _has(tables: Tables, column: Literal["label", "bundle"], name: str) -> bool:
    return bool(tables.ask(f"select 1 from segments where {column} = ? limit 1", [name]).num_rows)


def _known(tables: Tables, column: Literal["label", "bundle"]) -> list[str]:
    found: list[str] = tables.ask(f"select distinct {column} from segments")[column].to_pylist()
    return found


def _video_and_folder(under: str) -> tuple[str, str]:
    """The URI that `under` is itself, and how those below it start."""
    uri = under if "://" in under else file_uri(normal_url(under))
    return uri, uri.rstrip("/") + "/"


def _check_range(
    what: str, least: float | None, most_given: float | None, most: float = math.inf
) -> None:
    for word, value in (("least", least), ("largest", most_given)):
        if value is not None and not (0 <= value <= most and math.isfinite(value)):
            allowed = "at least 0" if most == math.inf else f"in [0, {most:g}]"
            raise InvalidArgument(f"a {word} {what} of {value:g}; it must be {allowed}")
    if least is not None and most_given is not None and least > most_given:
        raise InvalidArgument(f"a {what} from {least:g} to {most_given:g}, which is none")
