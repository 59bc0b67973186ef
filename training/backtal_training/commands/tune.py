"""Search a checkpoint's localization settings on held-out videos, and write the best into it.

The videos are those that the checkpoint's own training held out. Their CAS is computed once and
kept; a search takes seconds from there. The scores are calibrated on the same videos: after it a
segment of score 0.8 is right about 8 times in 10.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtal.annotations import GroundTruth
    from backtal.localization import LocalizationSettings
    from backtal.manifest import BundleDescription
    from backtal_training.cas_cache import VideoCas
    from backtal_training.checkpoint import CheckpointDescription
    from backtal_training.datasets import Sample
    from backtal_training.localization_search import SearchTrial
    from backtal_training.network import BackTALNetwork


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="its folder")
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="NAME.npz of each video"
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE", help="ActivityNet's format"
    )
    parser.add_argument(
        "--subset", default="training", help="that it was trained on (default: training)"
    )
    parser.add_argument(
        "--whole-subset",
        action="store_true",
        help="tune on all of --subset, a subset that the network was not trained on",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="NPZ", help="of the CAS; default: CHECKPOINT.cas.npz"
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="CHECKPOINT",
        help="write the winner into another checkpoint of the same classes, such as one trained "
        "on the whole split",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all trials")


def run(arguments: argparse.Namespace) -> int:
    """Search, write the winner, and say what it came to."""
    from backtal.annotations import GroundTruth
    from backtal_training import checkpoint
    from backtal_training.datasets import truth_of
    from backtal_training.held_out import held_out_of, load_videos
    from backtal_training.localization_search import best, search

    description, network = checkpoint.load(arguments.checkpoint)
    target = arguments.into or arguments.checkpoint
    _check_alike(description, target)
    held_out = None if arguments.whole_subset else held_out_of(arguments.checkpoint, description)
    samples = load_videos(
        arguments.features,
        GroundTruth.load(arguments.ground_truth).subset(arguments.subset),
        description.bundle,
        held_out,
    )
    videos, was_cached = _cas(arguments, description, network, samples)
    truth = truth_of(samples, description.bundle.classes)
    started = time.perf_counter()
    trials = search(videos, truth, description.bundle)
    winner, report = _calibrated(best(trials).settings, videos, truth, description.bundle)
    report = {
        "tuned_on": {
            "subset": arguments.subset,
            "held_out": not arguments.whole_subset,
            "videos": [video.name for video in videos],
        },
        "before": trials[0].average,
        "average": best(trials).average,
        "num_trials": len(trials),
        "seconds": time.perf_counter() - started,
        **report,
    }
    checkpoint.write_localization(target, winner, report)
    if arguments.json is not None:
        document = {
            **report,
            "winner": winner.model_dump(mode="json"),
            "trials": [trial.as_dict() for trial in trials],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _show(report, trials, winner, "read from the cache" if was_cached else "computed", target)
    return 0


def _check_alike(description: CheckpointDescription, target: Path) -> None:
    from backtal.settings import read_json
    from backtal_training.checkpoint import DESCRIPTION_NAME, CheckpointDescription

    other = read_json(CheckpointDescription, target / DESCRIPTION_NAME)
    if other.bundle.classes != description.bundle.classes:
        raise InvalidArgument(
            f"{target} has classes {', '.join(other.bundle.classes)}; the settings are of a "
            f"network with {', '.join(description.bundle.classes)}"
        )
    ours, theirs = description.bundle.localization, other.bundle.localization
    if (ours.preset, ours.top_k_ratio) != (theirs.preset, theirs.top_k_ratio):
        raise InvalidArgument(
            f"{target} has preset {theirs.preset!r} and top_k_ratio {theirs.top_k_ratio}; the "
            f"settings are of {ours.preset!r} and {ours.top_k_ratio}"
        )


def _cas(
    arguments: argparse.Namespace,
    description: CheckpointDescription,
    network: BackTALNetwork,
    samples: Sequence[Sample],
) -> tuple[tuple[VideoCas, ...], bool]:
    """The videos' CAS, and whether it was there already."""
    from backtal_training import cas_cache

    folder = arguments.checkpoint.resolve()
    path = arguments.cache or folder.with_name(f"{folder.name}.cas.npz")
    files = {sample.name: arguments.features / f"{sample.name}.npz" for sample in samples}
    preset = description.bundle.localization.preset
    grid = {**description.bundle.grid.model_dump(), "preset": preset}
    source = cas_cache.fingerprint(arguments.checkpoint, files, grid)
    known = cas_cache.load(path, source)
    if known is not None:
        return known, True
    videos = cas_cache.compute(network, samples)
    cas_cache.save(path, source, videos)
    return videos, False


def _calibrated(
    settings: LocalizationSettings,
    videos: Sequence[VideoCas],
    truth: GroundTruth,
    bundle: BundleDescription,
) -> tuple[LocalizationSettings, dict[str, Any]]:
    """The settings with the map fitted to their detections, and the error before and after."""
    from backtal.evaluation import reliability
    from backtal_training.calibration import fit_calibration
    from backtal_training.cas_cache import detect

    found = detect(videos, bundle.model_copy(update={"localization": settings}))
    fitted = fit_calibration(truth, found)
    calibrated = settings.model_copy(update={"calibration": fitted})
    mapped = detect(videos, bundle.model_copy(update={"localization": calibrated}))
    return calibrated, {
        "calibration_error_before": reliability(truth, found).expected_calibration_error,
        "calibration_error": reliability(truth, mapped).expected_calibration_error,
    }


def _show(
    report: dict[str, Any],
    trials: Sequence[SearchTrial],
    winner: LocalizationSettings,
    origin: str,
    target: Path,
) -> None:
    from rich.console import Console

    from backtal_training.localization_search import CALIBRATED_SPACE

    console = Console(highlight=False, markup=False)
    console.print(
        f"{len(report['tuned_on']['videos'])} videos, CAS {origin}; {len(trials)} trials in "
        f"{report['seconds']:.1f} s"
    )
    console.print(f"mean mAP {report['before']:.3f} -> {report['average']:.3f}")
    for name in CALIBRATED_SPACE:
        old, new = getattr(trials[0].settings, name), getattr(winner, name)
        if old != new:
            console.print(f"  {name}: {old} -> {new}")
    if winner.calibration is None:
        console.print("scores are left as they are: too few detections to calibrate them")
    else:
        console.print(
            f"calibration error {report['calibration_error_before']:.3f} -> "
            f"{report['calibration_error']:.3f}, on the videos it was fitted to"
        )
    console.print(f"written into {target}")
