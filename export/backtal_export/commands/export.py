"""Write a bundle into a Triton model repository, from a checkpoint or from kinetics400."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "source",
        metavar="CHECKPOINT_DIR|kinetics400",
        help="a checkpoint folder that `backtal train` wrote, or the name kinetics400: "
        "the bundle that needs no training",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        required=True,
        metavar="DIR",
        help="the model repository; it is made where there is none, and other bundles stay",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="BACKBONE=PATH",
        help="a file of weights for a backbone, say i3d-flow=flow_imagenet.pt; by default its own",
    )
    parser.add_argument("--name", help="the bundle's name; by default its own")


def run(arguments: argparse.Namespace) -> int:
    """Export, saying what is done."""
    from backtal.backbones import parse_weights
    from backtal_export.repository import write_bundle

    write_bundle(
        arguments.repository,
        arguments.source,
        name=arguments.name,
        say=_say,
        weights=parse_weights(arguments.weights),
    )
    return 0


def _say(text: str) -> None:
    # A download takes a while: what is being done is told before it, into a pipe too.
    print(text, flush=True)
