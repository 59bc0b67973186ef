"""The held-out corpus experiment: what the clicks are worth, and against which yardsticks.

``python -m backtal_training.experiment --features DIR --ground-truth FILE --clicks FILE
--motion FILE --json OUT``. Networks trained with clicks, without, and with full supervision are
tuned with the same trials on held-out training videos, then trained with several seeds and
evaluated on the test split. The motion file is an ``.npz`` with one array [N] a video: its
motion energy in N equal parts of its duration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backtal.annotations import GroundTruth
from backtal.clicks import Clicks
from backtal.errors import BacktalError, InvalidArgument
from backtal.evaluation import Detections, mean_average_precision
from backtal.features import FloatArray, read_arrays
from backtal.localization.settings import LocalizationSettings
from backtal.settings import read_yaml
from backtal_training.bundle import describe
from backtal_training.datasets import hold_out, load_samples, truth_of
from backtal_training.settings import DEMO_RECIPE, Recipe, Supervision
from backtal_training.statistics import (
    Doubles,
    Interval,
    over_seeds,
    percentile_interval,
    resampled_maps,
)
from backtal_training.tuning import (
    HELD_OUT_FRACTION,
    TUNED_TIOU,
    Chosen,
    Corpus,
    Pool,
    Trial,
    choose,
    draw_trials,
    localization_settings,
    pool,
    run_final,
    run_trial,
    score_options,
)
from backtal_training.yardsticks import (
    SceneClassifier,
    chance,
    motion_on_grid,
    scene_alone,
    scene_with_motion,
)

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
ARMS: tuple[Supervision, ...] = ("clicks", "video_labels", "frames")
SMOOTHINGS = (1, 3, 5, 7)
"""Positions over which the motion energy is averaged: what this yardstick has for trials."""


@dataclass(frozen=True)
class Options:
    """How much is run; `norm_weights` restricts what is tried of that weight."""

    num_trials: int = 12
    num_splits: int = 2
    num_seeds: int = 5
    num_resamples: int = 500
    jobs: int = 1
    norm_weights: tuple[float, ...] = ()


def run(corpus: Corpus, motion: Mapping[str, FloatArray], options: Options) -> dict[str, Any]:
    """The whole experiment, as plain data. `motion` [L] is on each sample's grid."""
    truth = truth_of(corpus.test, corpus.description.classes)
    trials = draw_trials(options.num_trials, norm_weights=options.norm_weights)
    with pool(corpus, options.jobs) as workers:
        chosen = _tune(workers, corpus, trials, options)
        runs = _train_finals(workers, trials, chosen, options)
    report: dict[str, Any] = {
        "tious": TIOUS,
        "options": asdict(options),
        "num_training_videos": len(corpus.training),
        "num_test_videos": len(corpus.test),
        "arms": {},
    }
    resampled = {}
    for arm in ARMS:
        resampled[arm] = resampled_maps(
            truth, runs[arm], TIOUS, num_resamples=options.num_resamples
        )
        trial = trials[chosen[arm].trial]
        recipe = trial.recipe(corpus.base).model_copy(
            update={"localization": chosen[arm].localization}
        )
        report["arms"][arm] = {
            "held_out_map": chosen[arm].held_out_map,
            "recipe": recipe.model_dump(mode="json"),
            **_summary(_maps(truth, runs[arm]), resampled[arm]),
        }
    report["clicks_minus_video_labels"] = _summary(
        _maps(truth, runs["clicks"]) - _maps(truth, runs["video_labels"]),
        resampled["clicks"] - resampled["video_labels"],
    )
    report["yardsticks"] = _yardsticks(corpus, motion, truth)
    return report


def _tune(
    workers: Pool, corpus: Corpus, trials: Sequence[Trial], options: Options
) -> dict[Supervision, Chosen]:
    tasks = {
        (arm, number, split): (run_trial, trial, arm, split)
        for number, trial in enumerate(trials)
        for arm in ARMS
        for split in range(options.num_splits)
    }
    scores = workers.run(tasks, _Counter("tuning", len(tasks)))
    chosen = {}
    for arm in ARMS:
        of_arm = {
            number: [scores[arm, number, split] for split in range(options.num_splits)]
            for number in range(len(trials))
        }
        winner, option, mean = choose(of_arm)
        recipe = trials[winner].recipe(corpus.base)
        chosen[arm] = Chosen(winner, localization_settings(recipe.localization)[option], mean)
    return chosen


def _train_finals(
    workers: Pool,
    trials: Sequence[Trial],
    chosen: Mapping[Supervision, Chosen],
    options: Options,
) -> dict[Supervision, list[Detections]]:
    tasks = {
        (arm, seed): (run_final, trials[choice.trial], arm, choice.localization, seed)
        for arm, choice in chosen.items()
        for seed in range(options.num_seeds)
    }
    found = workers.run(tasks, _Counter("training", len(tasks)))
    return {arm: [found[arm, seed] for seed in range(options.num_seeds)] for arm in chosen}


def _maps(truth: GroundTruth, runs: Sequence[Detections]) -> Doubles:
    """The mAP of each run at each tIoU, [runs, TIOUS]."""
    return np.array(
        [mean_average_precision(truth, run, TIOUS).mean_average_precision for run in runs]
    )


def _summary(maps: Doubles, resampled: Doubles) -> dict[str, Any]:
    columns = range(len(TIOUS))
    return {
        "map_by_seed": maps.tolist(),
        "over_seeds": [asdict(over_seeds(maps[:, column].tolist())) for column in columns],
        "over_videos": [
            asdict(percentile_interval(float(maps[:, column].mean()), resampled[:, column]))
            for column in columns
        ],
    }


def _yardsticks(
    corpus: Corpus, motion: Mapping[str, FloatArray], truth: GroundTruth
) -> dict[str, Any]:
    classes = corpus.description.classes
    classifier = SceneClassifier(corpus.training)
    smoothing, localization = _tune_motion(corpus, motion)
    moving = scene_with_motion(
        classifier,
        corpus.test,
        motion,
        corpus.description.model_copy(update={"localization": localization}),
        smoothing_positions=smoothing,
    )
    return {
        "chance": {"map": chance(corpus.training, corpus.test, truth, TIOUS).tolist()},
        "scene_alone": {
            "map": _maps(truth, [scene_alone(classifier, corpus.test, classes)])[0].tolist(),
            "label_accuracy": classifier.accuracy(corpus.test),
        },
        "scene_with_motion": {
            "map": _maps(truth, [moving])[0].tolist(),
            "smoothing_positions": smoothing,
            "localization": localization.model_dump(mode="json"),
        },
    }


def _tune_motion(
    corpus: Corpus, motion: Mapping[str, FloatArray]
) -> tuple[int, LocalizationSettings]:
    """The smoothing and the localization settings that are best on a held-out part."""
    kept, held = hold_out(corpus.training, HELD_OUT_FRACTION, seed=0)
    classifier = SceneClassifier(kept)
    truth = truth_of(held, corpus.description.classes)
    settings = localization_settings(corpus.description.localization)

    def detect(smoothing: int, one: LocalizationSettings) -> Detections:
        description = corpus.description.model_copy(update={"localization": one})
        return scene_with_motion(
            classifier, held, motion, description, smoothing_positions=smoothing
        )

    scores = {
        number: [score_options(partial(detect, smoothing), truth, settings)]
        for number, smoothing in enumerate(SMOOTHINGS)
    }
    winner, option, _ = choose(scores)
    return SMOOTHINGS[winner], settings[option]


class _Counter:
    """Says on standard error how many of a stage's tasks are done."""

    def __init__(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done = stage, total, 0

    def __call__(self, key: object) -> None:
        self._done += 1
        print(f"{self._stage}: {self._done} of {self._total} {key}", file=sys.stderr, flush=True)


def table(report: Mapping[str, Any]) -> str:
    """The report as lines: mAP at each tIoU, and intervals at the middle one."""
    middle = TIOUS.index(TUNED_TIOU[0])
    lines = ["mAP at tIoU        " + " ".join(f"{tiou:>6}" for tiou in TIOUS)]
    for name, yardstick in report["yardsticks"].items():
        lines.append(f"{name:<19}" + " ".join(f"{value:6.3f}" for value in yardstick["map"]))
    summaries = {**report["arms"], "clicks - labels": report["clicks_minus_video_labels"]}
    for name, summary in summaries.items():
        means = " ".join(f"{one['mean']:6.3f}" for one in summary["over_seeds"])
        seeds = Interval(**summary["over_seeds"][middle])
        videos = Interval(**summary["over_videos"][middle])
        lines.append(f"{name:<19}{means}  seeds {seeds}, videos {videos}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--features", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="FILE")
    parser.add_argument("--clicks", type=Path, required=True, metavar="FILE")
    parser.add_argument("--motion", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    parser.add_argument("--recipe", type=Path, default=DEMO_RECIPE, metavar="YAML")
    parser.add_argument("--trials", type=int, default=12, metavar="N")
    parser.add_argument("--splits", type=int, default=2, metavar="N")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--resamples", type=int, default=500, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--norm-weights", type=float, nargs="+", default=(), metavar="X", help="try these alone"
    )
    chosen = parser.parse_args(arguments)
    try:
        for name in ("trials", "splits", "seeds", "resamples", "jobs"):
            if getattr(chosen, name) < 1:
                raise InvalidArgument(f"--{name} is {getattr(chosen, name)}, allowed: from 1")
        corpus = load_corpus(chosen)
        energies = read_arrays(chosen.motion)
        motion = motion_on_grid(energies, (*corpus.training, *corpus.test))
    except BacktalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    report = run(
        corpus,
        motion,
        Options(
            chosen.trials,
            chosen.splits,
            chosen.seeds,
            chosen.resamples,
            chosen.jobs,
            tuple(chosen.norm_weights),
        ),
    )
    chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(report))
    return 0


def load_corpus(chosen: argparse.Namespace) -> Corpus:
    """Both splits' samples and the bundle that the base recipe describes."""
    base = read_yaml(Recipe, chosen.recipe)
    truth, clicks = GroundTruth.load(chosen.ground_truth), Clicks.load(chosen.clicks)
    samples, sequence = load_samples(chosen.features, truth, clicks, grid=base.grid)
    by_subset: dict[str, list[Any]] = {"training": [], "test": []}
    for sample in samples:
        by_subset.setdefault(truth.videos[sample.name].subset, []).append(sample)
    return Corpus(
        training=tuple(by_subset["training"]),
        test=tuple(by_subset["test"]),
        base=base,
        description=describe(base, truth.classes, sequence),
    )


if __name__ == "__main__":
    sys.exit(main())
