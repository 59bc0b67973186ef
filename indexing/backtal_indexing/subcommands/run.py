"""Answer every video of a library that an index does not have yet.

SOURCE is a video, a folder, a glob, s3://BUCKET/PREFIX, or a manifest: a text file with a path or
URI a line, or a table (.csv, .parquet) with a column uri. Given again, the command goes on where
it stopped, does what is new or changed, and marks what is gone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from backtal_indexing.subcommands.options import (
    check_running,
    configure_running,
    run_plan,
    service_of,
)

if TYPE_CHECKING:
    from backtal_indexing.planning import Plan, Wanted


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="videos")
    parser.add_argument(
        "--to", required=True, metavar="INDEX", help="the index: a folder or s3://BUCKET/PREFIX"
    )
    parser.add_argument(
        "--keep-missing",
        action="store_true",
        help="do not mark what a folder or prefix no longer has as deleted",
    )
    configure_running(parser)


def run(arguments: argparse.Namespace) -> int:
    """Index what is to be indexed. 0, or 1 where a video is not done."""
    from backtal_indexing.layout import Index, IndexManifest
    from backtal_indexing.listing import Listing
    from backtal_indexing.planning import plan_run
    from backtal_indexing.sources import parse_source, roots_of

    check_running(arguments)
    sources = [parse_source(text) for text in arguments.sources]
    with Listing(sources) as listing:
        manifest = IndexManifest.new(listing.num_videos, arguments.videos_per_shard)
        index = Index.create(arguments.to, manifest)

        def fill(plan: Plan, wanted: Wanted) -> None:
            marking = replace(wanted, marks_deleted=not arguments.keep_missing)
            plan_run(plan, index, listing, sources, marking)

        with service_of(arguments, roots_of(sources)) as service:
            return run_plan(arguments, index, service, fill)
