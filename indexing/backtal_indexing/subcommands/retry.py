"""Try the videos of an index again that failed or are quarantined."""

from __future__ import annotations

import argparse
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
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--failed", action="store_true", help="all of them")
    which.add_argument(
        "--uri", action="append", default=[], help="this one; can be given several times"
    )
    configure_running(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try them again. 0, or 1 where a video is still not done."""
    from backtal_indexing.layout import Index
    from backtal_indexing.planning import plan_retry
    from backtal_indexing.sources import One, roots_of
    from backtal_indexing.status import failed_uris

    check_running(arguments)
    index = Index.open(arguments.index)
    uris = failed_uris(index, arguments.uri)

    def fill(plan: Plan, wanted: Wanted) -> None:
        plan_retry(plan, index, uris, wanted)

    with service_of(arguments, roots_of([One(uri) for uri in sorted(uris)])) as service:
        return run_plan(arguments, index, service, fill)
