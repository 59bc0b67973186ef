"""`calibrated` against `released` localization on the same checkpoints, part by part.

Each row changes one thing. The first rows lead from the released code's post-processing to all
parts of `calibrated`, then each part is taken away from the whole again. A row's numbers
(thresholds, gamma, NMS, ...) are those of the checkpoint, with THUMOS14's thresholds on the
magnitude ("given"), and then what `backtal tune`'s search finds for that very row on the videos
that the checkpoint's training held out ("tuned"): a part must not win by numbers that suit it.
Scores are calibrated on the same videos. Everything shown is measured on the test split: on its
videos, and on videos of six of them joined, which are longer than a window.

    python benchmarks/localization.py --checkpoint DIR [DIR ...] --features DIR \\
        --ground-truth FILE [--quick] [--json FILE]

ECE is the expected calibration error at tIoU 0.5, scores beyond 0 to 1 taken as 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backtal.annotations import GroundTruth, Instance
from backtal.clicks import Clicks
from backtal.errors import BacktalError
from backtal.evaluation import mean_average_precision, reliability
from backtal.features import FeatureSequence
from backtal.localization import LocalizationSettings
from backtal.localization.presets import THUMOS14
from backtal.manifest import BundleDescription
from backtal_training import checkpoint
from backtal_training.calibration import fit_calibration
from backtal_training.cas_cache import VideoCas, compute, detect
from backtal_training.datasets import Sample, make_sample, truth_of
from backtal_training.held_out import held_out_of, load_videos
from backtal_training.localization_search import COMMON_SPACE, TIOUS, best, search

VIDEOS_JOINED = 6
SOFT_SIGMAS = (0.1, 0.2, 0.3, 0.5, 1.0)

Changes = Mapping[str, Any]

AS_RELEASED: Changes = {
    "contrast": "thresholded",
    "one_scale": False,
    "nms_added_seconds": 1.0,
    "nms_sigma": None,
}
TRUE_SECONDS: Changes = {**AS_RELEASED, "nms_added_seconds": 0.0}
CLAMPED: Changes = {**TRUE_SECONDS, "contrast": "clamped"}
ONE_SCALE: Changes = {**CLAMPED, "one_scale": True}
WHOLE: Changes = {**ONE_SCALE, "nms_sigma": 0.3}

ROWS: Mapping[str, Changes] = {
    "released": {"preset": "released"},
    "grid, overlapping windows": AS_RELEASED,
    "+ tIoU in true seconds": TRUE_SECONDS,
    "+ contrast, clamped at 0": CLAMPED,
    "+ families on one scale": ONE_SCALE,
    "+ soft-NMS: calibrated": WHOLE,
    "  without the windows": {**WHOLE, "windows": "whole"},
    "  with a second added": {**WHOLE, "nms_added_seconds": 1.0},
    "  contrast, thresholded": {**WHOLE, "contrast": "thresholded"},
    "  contrast, not clamped": {**WHOLE, "contrast": "normalised"},
    "  families on two scales": {**WHOLE, "one_scale": False},
    "  with the argmax fallback": {**WHOLE, "argmax_fallback": True},
}


@dataclass(frozen=True)
class Figures:
    """A row on one checkpoint, on the test split: mean mAP at 0.3-0.7, and calibration errors."""

    given_map: float
    tuned_map: float
    tuned_map_at_half: float
    tuned_joined_map: float
    error: float
    calibrated_error: float


@dataclass(frozen=True, eq=False)
class Videos:
    """The CAS of a set of videos and what is true of them."""

    cas: tuple[VideoCas, ...]
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]

    @property
    def truth(self) -> GroundTruth:
        return truth_of(self.samples, self.classes)


@dataclass(frozen=True, eq=False)
class Case:
    """A checkpoint's videos as one preset sees them: on the grid, or each resized to T."""

    bundle: BundleDescription
    held_out: Videos
    test: Videos
    joined: Videos


def measure(case: Case, changes: Changes, *, is_quick: bool) -> Figures:
    """One row on one checkpoint."""
    settings = LocalizationSettings.model_validate(
        {**case.bundle.localization.model_dump(), **changes}
    )
    bundle = case.bundle.model_copy(update={"localization": settings})
    space = dict(COMMON_SPACE)
    if settings.nms_sigma is not None:
        space["nms_sigma"] = SOFT_SIGMAS
    if is_quick:
        space = {"gamma": space["gamma"]}
    held_out = case.held_out
    tuned = best(search(held_out.cas, held_out.truth, bundle, space=space)).settings
    bundles = [bundle, bundle.model_copy(update={"localization": tuned})]
    given, found = (detect(case.test.cas, one) for one in bundles)
    truth = case.test.truth
    result = mean_average_precision(truth, found, TIOUS)
    fitted = fit_calibration(held_out.truth, detect(held_out.cas, bundles[1]))
    calibrated = tuned.model_copy(update={"calibration": fitted})
    mapped = detect(case.test.cas, bundle.model_copy(update={"localization": calibrated}))
    joined = detect(case.joined.cas, bundles[1])
    return Figures(
        given_map=mean_average_precision(truth, given, TIOUS).average,
        tuned_map=result.average,
        tuned_map_at_half=result.at(0.5),
        tuned_joined_map=mean_average_precision(case.joined.truth, joined, TIOUS).average,
        error=reliability(truth, found).expected_calibration_error,
        calibrated_error=reliability(truth, mapped).expected_calibration_error,
    )


def load_cases(folder: Path, features: Path, ground_truth: GroundTruth) -> dict[str, Case]:
    """A checkpoint's videos for either preset."""
    description, network = checkpoint.load(folder)
    held_out = held_out_of(folder, description)
    own = description.bundle.localization
    base = {name: getattr(own, name) for name in (*COMMON_SPACE, "top_k_ratio", "max_segments")}
    base["magnitude_thresholds"] = THUMOS14.magnitude_thresholds
    cases = {}
    for preset in ("calibrated", "released"):
        settings = LocalizationSettings.model_validate({**base, "preset": preset})
        bundle = description.bundle.model_copy(update={"localization": settings})

        def videos(samples: Sequence[Sample]) -> Videos:
            chosen = tuple(samples)
            return Videos(compute(network, chosen), chosen, description.bundle.classes)

        test = ground_truth.subset("test")
        cases[preset] = Case(
            bundle=bundle,
            held_out=videos(
                load_videos(features, ground_truth.subset("training"), bundle, held_out)
            ),
            test=videos(load_videos(features, test, bundle)),
            joined=videos(join(features, test, bundle)),
        )
    return cases


def join(features: Path, truth: GroundTruth, bundle: BundleDescription) -> list[Sample]:
    """Videos of VIDEOS_JOINED of these one after the other, of different places of the list."""
    names = list(truth.videos)
    count = max(1, len(names) // VIDEOS_JOINED)
    samples = []
    for number in range(count):
        parts = [FeatureSequence.load(features / f"{name}.npz") for name in names[number::count]]
        seconds = np.cumsum([0.0, *(part.duration_seconds for part in parts)])
        sequence = replace(
            parts[0],
            values=np.concatenate([part.values for part in parts], axis=1),
            clip_start_seconds=_shifted([part.clip_start_seconds for part in parts], seconds),
            clip_end_seconds=_shifted([part.clip_end_seconds for part in parts], seconds),
            duration_seconds=float(seconds[-1]),
            num_frames_decoded=sum(part.num_frames_decoded for part in parts),
        )
        instances = [
            Instance(one.start_seconds + offset, one.end_seconds + offset, one.label)
            for name, offset in zip(names[number::count], seconds.tolist(), strict=False)
            for one in truth.videos[name].instances
        ]
        samples.append(
            make_sample(
                f"joined_{number}",
                sequence,
                instances=instances,
                clicks=Clicks({}),
                classes=truth.classes,
                grid=bundle.grid,
                temporal="resize" if bundle.localization.preset == "released" else "windows",
            )
        )
    return samples


def _shifted(times: Sequence[Any], offsets: Any) -> Any:
    moved = [one + offset for one, offset in zip(times, offsets.tolist(), strict=False)]
    return np.concatenate(moved).astype(np.float32)


def table(figures: Mapping[str, Sequence[Figures]]) -> Table:
    """The means over checkpoints."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    headings = ("given", "tuned", "at 0.5", "joined", "ECE", "calibrated")
    shown.add_column("mean mAP at 0.3-0.7", no_wrap=True)
    for heading in headings:
        shown.add_column(heading, justify="right")
    for name, row in figures.items():
        means = np.mean([list(asdict(one).values()) for one in row], axis=0)
        shown.add_row(name, *(f"{value:.3f}" for value in means))
    return shown


def flat(figures: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """The means by ``row.figure``, and the least advantage of calibrated over released."""
    document = {}
    for name, row in figures.items():
        key = "_".join("".join(c if c.isalnum() else " " for c in name).split())
        for figure in asdict(row[0]):
            values = [getattr(one, figure) for one in row]
            document[f"{key}.{figure}"] = float(np.mean(values))
    whole, released = figures["+ soft-NMS: calibrated"], figures["released"]
    gains = [a.tuned_map - b.tuned_map for a, b in zip(whole, released, strict=True)]
    document["calibrated_minus_released.mean"] = float(np.mean(gains))
    document["calibrated_minus_released.least"] = float(np.min(gains))
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--features", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="search gamma alone")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    started = time.perf_counter()
    torch.set_num_threads(1)
    figures: dict[str, list[Figures]] = {name: [] for name in ROWS}
    try:
        truth = GroundTruth.load(chosen.ground_truth)
        for folder in track(chosen.checkpoint, console=Console(stderr=True)):
            cases = load_cases(folder, chosen.features, truth)
            for name, changes in ROWS.items():
                case = cases[changes.get("preset", "calibrated")]
                figures[name].append(measure(case, changes, is_quick=chosen.quick))
    except BacktalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    Console().print(table(figures))
    seconds = time.perf_counter() - started
    print(f"{len(chosen.checkpoint)} checkpoints, {seconds:.0f} s")
    if chosen.json is not None:
        document = {**flat(figures), "seconds": seconds}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
