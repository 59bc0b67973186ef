"""Write a bundle into a Triton model repository, from a checkpoint or from kinetics400."""

from __future__ import annotations

import argparse
from pathlib import Path

from backtal.errors import InvalidArgument


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
    parser.add_argument(
        "--target",
        choices=("embedded", "triton-cpu", "triton-gpu", "triton-tensorrt"),
        default="embedded",
        help="which Triton the repository is for: the one that `backtal serve` starts (default), "
        "or NVIDIA's, on a CPU, on a GPU, on a GPU through TensorRT",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="by default the fastest that this machine can prove: bfloat16 on a CPU that has it",
    )
    gate = parser.add_argument_group(
        "the gate", "a precision is written only if it is close enough to float32"
    )
    gate.add_argument(
        "--gates", type=Path, metavar="FILE", help="YAML: the thresholds (docs/precision.md)"
    )
    gate.add_argument(
        "--validation", type=Path, metavar="DIR", help="features, to measure the mAP on too"
    )
    gate.add_argument(
        "--ground-truth", type=Path, metavar="FILE", help="of the validation set's videos"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, saying what is done."""
    from backtal.backbones import parse_weights
    from backtal_export.gates import Validation, read_thresholds
    from backtal_export.repository import ExportOptions, write_bundle

    if (arguments.validation is None) != (arguments.ground_truth is None):
        raise InvalidArgument("--validation and --ground-truth go together")
    validation = None
    if arguments.validation is not None:
        validation = Validation.load(arguments.validation, arguments.ground_truth)
    options = ExportOptions(
        name=arguments.name,
        target=arguments.target,
        precision=arguments.precision,
        thresholds=read_thresholds(arguments.gates),
        validation=validation,
    )
    weights = parse_weights(arguments.weights)
    write_bundle(arguments.repository, arguments.source, options, say=_say, weights=weights)
    return 0


def _say(text: str) -> None:
    # A download takes a while: what is being done is told before it, into a pipe too.
    print(text, flush=True)
