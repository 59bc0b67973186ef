"""The options that choose segments, of `search` and of `export`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtal_indexing.search import Query

# backtal_indexing.search.ORDERS: importing it here would load DuckDB for a --help.
ORDERS = ("score", "length", "start", "video")


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    group = parser.add_argument_group("which segments")
    group.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME",
        help="of this class; may be repeated",
    )
    group.add_argument("--min-score", type=float, metavar="X", help="0 to 1")
    group.add_argument("--max-score", type=float, metavar="X", help="0 to 1")
    group.add_argument("--min-length", type=float, metavar="SECONDS")
    group.add_argument("--max-length", type=float, metavar="SECONDS")
    group.add_argument(
        "--under", metavar="PLACE", help="only of videos below this folder or s3:// prefix"
    )
    group.add_argument("--bundle", metavar="NAME", help="only those that this bundle found")
    group.add_argument(
        "--after",
        type=float,
        metavar="SECONDS",
        help="that start at this time of the video or later",
    )
    group.add_argument(
        "--before", type=float, metavar="SECONDS", help="that end by this time of the video"
    )
    group.add_argument("--order", choices=ORDERS, default="score", help="default: score")


def query_of(arguments: argparse.Namespace, limit: int | None = None) -> Query:
    """The query that the options say. Raises InvalidArgument."""
    from backtal_indexing.search import Query

    return Query(
        labels=tuple(dict.fromkeys(arguments.label)),
        min_score=arguments.min_score,
        max_score=arguments.max_score,
        min_length_seconds=arguments.min_length,
        max_length_seconds=arguments.max_length,
        under=arguments.under,
        bundle=arguments.bundle,
        after_seconds=arguments.after,
        before_seconds=arguments.before,
        order=arguments.order,
        limit=limit,
    )
