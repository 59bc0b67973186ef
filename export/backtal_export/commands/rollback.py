"""Serve the version before again: `backtal rollback REPOSITORY/BUNDLE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from backtal_export.commands.publish import add_server_option, confirmed


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="in the repository that is served"
    )
    parser.add_argument(
        "--to-version",
        type=int,
        metavar="N",
        help="by default the last one that differs from the newest",
    )
    add_server_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the earlier version again, as the newest."""
    from backtal_export.publishing import roll_back

    repository, bundle = arguments.bundle.parent, arguments.bundle.name
    done = roll_back(repository, bundle, arguments.to_version)
    print(
        f"rolled {bundle} in {repository} back to version {done.copy_of}, as version {done.version}"
    )
    return confirmed(repository, bundle, done.version, arguments.server)
