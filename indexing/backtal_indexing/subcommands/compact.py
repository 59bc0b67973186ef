"""Write the table of segments that searches read, sorted by label and falling score."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")


def run(arguments: argparse.Namespace) -> int:
    """Write it, and say what it holds."""
    from backtal_indexing.compact import compact
    from backtal_indexing.layout import Index

    made = compact(Index.open(arguments.index))
    print(f"{made.num_segments} segments of {made.num_videos} videos")
    return 0
