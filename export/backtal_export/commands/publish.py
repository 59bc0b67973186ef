"""Put an exported bundle into the repository that is served, past its gate on a golden set."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="what `backtal export` wrote"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the repository that is served"
    )
    parser.add_argument(
        "--golden",
        type=Path,
        required=True,
        metavar="DIR",
        help="feature files of a few videos and their ground_truth.json",
    )
    parser.add_argument("--gates", type=Path, metavar="FILE", help="YAML: the thresholds")


def run(arguments: argparse.Namespace) -> int:
    """Publish, saying what was measured."""
    from backtal_export.gates import read_thresholds
    from backtal_export.publishing import publish

    done = publish(
        arguments.bundle.parent,
        arguments.bundle.name,
        arguments.to,
        arguments.golden,
        read_thresholds(arguments.gates),
        say=lambda text: print(text, flush=True),
    )
    before = "" if done.replaced_map is None else f", before {done.replaced_map:.4f}"
    print(
        f"published {done.bundle} as version {done.version} in {arguments.to}: "
        f"mAP {done.golden_map:.4f} on the golden set{before}"
    )
    return 0
