"""Read a whole index and say what is wrong with it."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong; 1 where anything is."""
    from backtal_indexing.compact import segments_are_current
    from backtal_indexing.layout import Index
    from backtal_indexing.verify import verify

    index = Index.open(arguments.index)
    findings = verify(index)
    for problem in findings.problems:
        print(problem)
    kind = "current" if segments_are_current(index) else "not current: backtal index compact"
    print(
        f"{findings.num_rows} rows in {findings.num_files} files, "
        f"{len(findings.problems)} problems; the table of segments is {kind}"
    )
    return 1 if findings.problems else 0
