"""Find segments of an index by label, score, length and place.

The best first. Times are seconds from the start of the video; --json gives all columns of the
segments as objects.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backtal_indexing.subcommands.query_options import add_query_options, query_of

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_LIMIT = 50
PIPE_WIDTH = 400


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")
    add_query_options(parser)
    parser.add_argument(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"at most so many (default: {DEFAULT_LIMIT})",
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found."""
    from backtal_indexing.reading import open_tables
    from backtal_indexing.search import search
    from backtal_indexing.subcommands.printing import print_json, warn_of_fresh_files

    query = query_of(arguments, limit=arguments.limit)
    with open_tables(arguments.index) as tables:
        found = search(tables, query)
        warn_of_fresh_files(tables)
    if arguments.json:
        print_json({"segments": found.to_pylist()})
    else:
        _show(found, several_bundles=len(found["bundle"].unique()) > 1)
    return 0


def _show(found: pa.Table, *, several_bundles: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from backtal.report import clock

    table = Table()
    for heading in ("score", "start", "end"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("label", overflow="fold")
    table.add_column("video", overflow="fold")
    if several_bundles:
        table.add_column("bundle", overflow="fold")
    for row in found.to_pylist():
        cells = [f"{row['score']:.3f}", clock(row["start_seconds"]), clock(row["end_seconds"])]
        names = [row["label"], row["uri"], *([row["bundle"]] if several_bundles else [])]
        table.add_row(*cells, *map(Text, names))
    console = Console(highlight=False)
    if not console.is_terminal:
        # For `| grep`: a URI on one line.
        console.width = PIPE_WIDTH
    console.print(table if found.num_rows else "no such segment")
