"""How many videos of an index are done, and what happened to those that are not."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtal_indexing.layout import Index
    from backtal_indexing.status import IndexStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")
    parser.add_argument(
        "--failures", type=int, default=20, metavar="N", help="show so many (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from backtal_indexing.layout import Index
    from backtal_indexing.status import status_of
    from backtal_indexing.subcommands.printing import print_json

    index = Index.open(arguments.index)
    status = status_of(index, max(arguments.failures, 0))
    if arguments.json:
        print_json(_document(status))
    else:
        _show(index, status)
    return 0


def _document(status: IndexStatus) -> dict[str, object]:
    bundles: dict[str, dict[str, int]] = {}
    for (bundle, kind), count in sorted(status.num_videos.items()):
        bundles.setdefault(bundle, {})[kind] = count
    return {
        "videos": bundles,
        "hours": status.hours,
        "files": status.num_files,
        "failures": [dataclasses.asdict(failure) for failure in status.failures],
    }


def _show(index: Index, status: IndexStatus) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from backtal_indexing.schema import STATUSES

    console = Console(highlight=False)
    title = Text(f"{index.url}  {status.hours:.1f} hours in {status.num_files} files")
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("bundle")
    for kind in STATUSES:
        table.add_column(kind, justify="right")
    for bundle in sorted({bundle for bundle, _ in status.num_videos}):
        table.add_row(bundle, *(str(status.num_videos[bundle, kind]) for kind in STATUSES))
    console.print(table)
    for failure in status.failures:
        tried = f"{failure.status} after {failure.attempts}"
        console.print(f"{failure.uri}: {tried}: {failure.error}", markup=False, soft_wrap=True)
