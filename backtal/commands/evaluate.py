"""Score detections against ground truth: mAP by ActivityNet's protocol, and what goes wrong.

Either --from, anybody's file of results in ActivityNet's format, or --features and --bundle: then
the bundle's pipeline answers each feature file in this process first, as the server would.
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
    from backtal.segments import Segment

DEFAULT_TIOUS = (tuple(tenth / 10 for tenth in range(1, 10)),)
STANDARD_OUTPUT = "-"
MOST_TIOUS = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--from", type=Path, dest="results", metavar="RESULTS", help="detections, JSON"
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="JSON", help="in ActivityNet's format"
    )
    parser.add_argument("--subset", metavar="NAME", help="of the ground truth; default: all")
    parser.add_argument(
        "--tiou",
        type=tious,
        nargs="+",
        default=DEFAULT_TIOUS,
        metavar="TIOU",
        help="thresholds of the mAP, numbers or FROM:TO:STEP; default: 0.1:0.9:0.1",
    )
    parser.add_argument(
        "--average",
        type=tiou_range,
        nargs="+",
        default=(),
        metavar="FROM:TO",
        help="also the mean mAP over these tIoUs",
    )
    parser.add_argument(
        "--missing-as-empty",
        action="store_true",
        help="a video without detections counts as one in which nothing was found, and is named",
    )
    parser.add_argument(
        "--extra-as-wrong",
        action="store_true",
        help="detections of videos that the ground truth lacks count as wrong, not as an error",
    )
    offline = parser.add_argument_group("answer feature files first")
    offline.add_argument("--features", type=Path, metavar="DIR", help="VIDEO.npz for each video")
    offline.add_argument("--bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="what answers")
    offline.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    offline.add_argument("--results-to", type=Path, metavar="JSON", help="keep the detections")
    parser.add_argument("--per-class", action="store_true", help="also the AP of each class")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output")
    _configure_analysis(parser)


def _configure_analysis(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("error analysis")
    group.add_argument(
        "--analysis",
        action="store_true",
        help="kinds of errors, sensitivity, and how true the scores are",
    )
    group.add_argument(
        "--charts", type=Path, metavar="DIR", help="the analysis as three pictures (SVG) too"
    )
    group.add_argument(
        "--analysis-tiou", type=float, default=0.5, metavar="TIOU", help="default: 0.5"
    )
    group.add_argument(
        "--lengths",
        type=float,
        nargs="+",
        default=(3.0, 6.0, 12.0, 18.0),
        metavar="SECONDS",
        help="edges of the buckets of length; default: 3 6 12 18",
    )
    group.add_argument(
        "--numbers",
        type=int,
        nargs="+",
        default=(1, 4, 8),
        metavar="N",
        help="edges of the buckets of instances a video; default: 1 4 8",
    )


def tious(text: str) -> tuple[float, ...]:
    """``0.5``, or ``0.3:0.7:0.1``: both ends counted. Raises InvalidArgument."""
    parts = _numbers(text)
    if len(parts) == 1:
        return parts
    if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0]:
        raise InvalidArgument(f"--tiou {text}; allowed are a number and FROM:TO:STEP")
    first, last, step = parts
    count = int((last - first) / step + 1e-6) + 1
    if count > MOST_TIOUS:
        raise InvalidArgument(f"--tiou {text} is {count} thresholds; at most {MOST_TIOUS}")
    return tuple(first + index * step for index in range(count))


def tiou_range(text: str) -> tuple[float, float]:
    """``0.3:0.7``. Raises InvalidArgument."""
    parts = _numbers(text)
    if len(parts) != 2 or parts[1] < parts[0]:
        raise InvalidArgument(f"--average {text}; it must be FROM:TO")
    return parts[0], parts[1]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(":"))
    except ValueError:
        raise InvalidArgument(f"{text!r} is no tIoU; allowed are numbers in (0, 1]") from None


def run(arguments: argparse.Namespace) -> int:
    """Print the mAP at each tIoU, and its mean; the analysis where it is asked for."""
    from rich.console import Console

    from backtal.annotations import GroundTruth
    from backtal.evaluation import mean_average_precision
    from backtal.evaluation.tables import as_json, show_result

    _check_sources(arguments)
    ground_truth = GroundTruth.load(arguments.ground_truth)
    detections = _detections(arguments, ground_truth)
    result = mean_average_precision(
        ground_truth,
        detections,
        [tiou for group in arguments.tiou for tiou in group],
        subset=arguments.subset,
        missing="empty" if arguments.missing_as_empty else "error",
        extra="wrong" if arguments.extra_as_wrong else "error",
    )
    console = Console(stderr=arguments.json == STANDARD_OUTPUT)
    show_result(console, result, arguments.average, per_class=arguments.per_class)
    more: dict[str, Any] = {}
    if arguments.analysis or arguments.charts is not None:
        more = _analyse(arguments, ground_truth, detections, console)
    _write_json(arguments.json, as_json(result, arguments.average, **more))
    return 0


def _analyse(
    arguments: argparse.Namespace,
    ground_truth: GroundTruth,
    detections: dict[str, tuple[Segment, ...]],
    console: Console,
) -> dict[str, Any]:
    from backtal.evaluation import DiagnosisSettings, diagnose, reliability
    from backtal.evaluation.charts import write_charts
    from backtal.evaluation.tables import show_diagnosis, show_reliability

    truth = ground_truth if arguments.subset is None else ground_truth.subset(arguments.subset)
    settings = DiagnosisSettings(
        tiou=arguments.analysis_tiou,
        length_edges_seconds=tuple(arguments.lengths),
        number_edges=tuple(arguments.numbers),
    )
    diagnosis = diagnose(truth, detections, settings)
    true_scores = reliability(truth, detections, settings.tiou)
    show_diagnosis(console, diagnosis)
    show_reliability(console, true_scores)
    if arguments.charts is not None:
        for path in write_charts(arguments.charts, diagnosis, true_scores):
            console.print(str(path), highlight=False, markup=False)
    return {"diagnosis": diagnosis, "reliability": true_scores}


def _write_json(target: str | None, document: dict[str, Any]) -> None:
    if target is None:
        return
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if target == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _check_sources(arguments: argparse.Namespace) -> None:
    offline = arguments.features is not None
    if (arguments.results is None) != offline:
        raise InvalidArgument("give either --from or --features with --bundle")
    if offline and arguments.bundle is None:
        raise InvalidArgument("--features needs --bundle, the bundle that answers")


def _detections(
    arguments: argparse.Namespace, ground_truth: GroundTruth
) -> dict[str, tuple[Segment, ...]]:
    from backtal.evaluation import read_results, write_results

    if arguments.results is not None:
        return read_results(arguments.results)
    detections = _answer(arguments, ground_truth)
    if arguments.results_to is not None:
        write_results(arguments.results_to, detections)
    return detections


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
