"""Score detections against ground truth: mAP by ActivityNet's protocol.

Either RESULTS, a file in ActivityNet's results format, or --features and --bundle: then the
bundle's pipeline answers each feature file in this process first, as the server would.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from rich.console import Console

    from backtal.annotations import GroundTruth
    from backtal.evaluation import EvaluationResult
    from backtal.segments import Segment

DEFAULT_TIOUS = tuple(tenth / 10 for tenth in range(1, 10))
STANDARD_OUTPUT = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS", help="detections, JSON")
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="JSON", help="in ActivityNet's format"
    )
    parser.add_argument("--subset", metavar="NAME", help="of the ground truth; default: all")
    parser.add_argument(
        "--tiou",
        type=float,
        nargs="+",
        default=DEFAULT_TIOUS,
        metavar="TIOU",
        help="thresholds of the mAP; default: 0.1 to 0.9",
    )
    parser.add_argument(
        "--missing-as-empty",
        action="store_true",
        help="a video without detections counts as one in which nothing was found",
    )
    offline = parser.add_argument_group("answer feature files first")
    offline.add_argument("--features", type=Path, metavar="DIR", help="VIDEO.npz for each video")
    offline.add_argument("--bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="what answers")
    offline.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    offline.add_argument("--results-to", type=Path, metavar="JSON", help="keep the detections")
    parser.add_argument("--per-class", action="store_true", help="also the mean AP of each class")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Print the mAP at each tIoU, and its mean."""
    from rich.console import Console

    from backtal.annotations import GroundTruth
    from backtal.evaluation import mean_average_precision, read_results, write_results

    _check_sources(arguments)
    ground_truth = GroundTruth.load(arguments.ground_truth)
    if arguments.results is not None:
        detections = read_results(arguments.results)
    else:
        detections = _answer(arguments, ground_truth)
        if arguments.results_to is not None:
            write_results(arguments.results_to, detections)
    result = mean_average_precision(
        ground_truth,
        detections,
        arguments.tiou,
        subset=arguments.subset,
        missing="empty" if arguments.missing_as_empty else "error",
    )
    show(Console(stderr=arguments.json == STANDARD_OUTPUT), result, arguments.per_class)
    if arguments.json is not None:
        text = json.dumps(as_json(result), indent=2, ensure_ascii=False) + "\n"
        if arguments.json == STANDARD_OUTPUT:
            sys.stdout.write(text)
        else:
            Path(arguments.json).write_text(text, encoding="utf-8")
    return 0


def show(console: Console, result: EvaluationResult, per_class: bool) -> None:
    """Print the figures as a table."""
    from rich import box
    from rich.table import Table

    title = (
        f"{result.num_detections} detections, {result.num_instances} instances in "
        f"{result.num_videos} videos; mAP by tIoU"
    )
    # Ten columns of three digits in a terminal of 80.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("")
    for heading in (*(f"{tiou:g}" for tiou in result.tious), "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    means = (f"{value:.3f}" for value in result.mean_average_precision)
    table.add_row("mAP", *means, f"{result.average:.3f}")
    console.print(table)
    if per_class:
        classes = Table("class", "mean AP", box=box.SIMPLE_HEAD)
        for name, row in result.class_average_precision.items():
            classes.add_row(name, f"{sum(row) / len(row):.3f}")
        console.print(classes)


def as_json(result: EvaluationResult) -> dict[str, Any]:
    """The figures as plain data."""
    return {
        "tiou": list(result.tious),
        "mean_average_precision": list(result.mean_average_precision),
        "average": result.average,
        "class_average_precision": {
            name: list(row) for name, row in result.class_average_precision.items()
        },
        "num_videos": result.num_videos,
        "num_instances": result.num_instances,
        "num_detections": result.num_detections,
    }


def _check_sources(arguments: argparse.Namespace) -> None:
    offline = arguments.features is not None
    if (arguments.results is None) != offline:
        raise InvalidArgument("give either RESULTS or --features with --bundle")
    if offline and arguments.bundle is None:
        raise InvalidArgument("--features needs --bundle, the bundle that answers")


def _answer(
    arguments: argparse.Namespace, ground_truth: GroundTruth
) -> dict[str, tuple[Segment, ...]]:
    """The bundle's detections for each video of the subset."""
    from rich.console import Console
    from rich.progress import track

    from backtal.features import FeatureSequence
    from backtal.pipeline import Pipeline, Request
    from backtal.runtime import OnnxStages, load_bundle

    truth = ground_truth if arguments.subset is None else ground_truth.subset(arguments.subset)
    paths = {name: arguments.features / f"{name}.npz" for name in truth.videos}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise InvalidArgument(
            f"no features for {len(missing)} of {len(paths)} videos: {', '.join(missing[:3])}"
        )
    repository, name = arguments.bundle.parent, arguments.bundle.name
    manifest = load_bundle(repository, name)
    pipeline = Pipeline(manifest, OnnxStages(repository, manifest, arguments.threads))
    console = Console(stderr=True)
    return {
        name: pipeline.run(Request(features=FeatureSequence.load(path))).segments
        for name, path in track(paths.items(), description=name, console=console)
    }
