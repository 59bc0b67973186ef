"""Convert a released BackTAL checkpoint (.pth) into a checkpoint folder of ours.

Its parameters are read strictly and without running what the file may hold. The network is of the
`released` layout; its answers are those of the released code.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="the released file")
    parser.add_argument(
        "--data-set", required=True, metavar="DATASET", help="thumos14, or its YAML file"
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE", help="for the classes' names"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the checkpoint's folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the folder."""
    from backtal.annotations import GroundTruth
    from backtal_training import checkpoint
    from backtal_training.data_set import find
    from backtal_training.released_checkpoint import read_released

    data_set, _ = find(arguments.data_set)
    classes = GroundTruth.load(arguments.ground_truth).classes
    description, network = read_released(arguments.checkpoint, data_set.recipe, classes)
    checkpoint.save(arguments.to, description, network)
    sizes = description.network
    print(
        f"wrote {arguments.to}: {sizes.feature_dim} features, {sizes.num_classes} classes, "
        f"released layout"
    )
    return 0
