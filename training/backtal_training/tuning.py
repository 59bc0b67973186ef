"""Tuning with the same effort for every arm: one list of trials, scored on held-out videos.

A trial is a training recipe; each of its networks is localized with every setting of one grid.
The repeated splits come from the training videos alone.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from backtal.annotations import GroundTruth
from backtal.evaluation import Detections, mean_average_precision
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import BundleDescription
from backtal_training.datasets import Sample, hold_out, truth_of
from backtal_training.settings import Recipe, Supervision
from backtal_training.trainer import activations, localize_all, train

HELD_OUT_FRACTION = 0.25
TUNED_TIOU = (0.5,)

TRAINING_GRID: dict[str, tuple[float | int, ...]] = {
    "learning_rate": (1e-3, 2e-3),
    "epochs": (60, 100),
    "dropout": (0.5, 0.7),
    "top_k_ratio": (0.125, 0.25, 0.4),
    "norm_weight": (1e-4, 1e-3, 1e-2, 3e-2),
}
LOCALIZATION_GRID: dict[str, tuple[Any, ...]] = {
    "cas_thresholds": (
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (0.3, 0.4, 0.5, 0.6, 0.7),
        (0.5, 0.6, 0.7, 0.8),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ),
    "outer_width": (0.25, 0.5),
    "gamma": (0.2, 1.0),
    "class_score_threshold": (0.1, 0.25),
    "nms_tiou": (0.3, 0.5),
}


@dataclass(frozen=True)
class Trial:
    """One point of the training grid."""

    learning_rate: float
    epochs: int
    dropout: float
    top_k_ratio: float
    norm_weight: float

    def recipe(self, base: Recipe, seed: int = 0) -> Recipe:
        """The base recipe with this trial's values; nothing held out, the last epoch kept."""
        losses = {
            "top_k_ratio": self.top_k_ratio,
            "separation_top_k_ratio": self.top_k_ratio,
            "norm_weight": self.norm_weight,
        }
        optimizer = {"learning_rate": self.learning_rate, "epochs": self.epochs}
        changed = base.model_copy(
            update={
                "seed": seed,
                "network": base.network.model_copy(update={"dropout": self.dropout}),
                "losses": base.losses.model_copy(update=losses),
                "optimizer": base.optimizer.model_copy(update=optimizer),
                "selection": base.selection.model_copy(update={"held_out_fraction": 0.0}),
                "localization": base.localization.model_copy(
                    update={"top_k_ratio": self.top_k_ratio}
                ),
            }
        )
        return Recipe.model_validate(changed.model_dump())


def draw_trials(
    count: int, seed: int = 0, *, norm_weights: Sequence[float] = ()
) -> tuple[Trial, ...]:
    """Different points of the training grid, the same ones for every arm.

    `norm_weights`, where there are any, are tried in place of the grid's.
    """
    grid: dict[str, Any] = {**TRAINING_GRID}
    if norm_weights:
        grid["norm_weight"] = tuple(norm_weights)
    points = list(itertools.product(*grid.values()))
    chosen = np.random.default_rng(seed).permutation(len(points))[:count]
    return tuple(Trial(**dict(zip(grid, points[index], strict=True))) for index in chosen)


def localization_settings(base: LocalizationSettings) -> tuple[LocalizationSettings, ...]:
    """Every point of the localization grid on top of `base`."""
    return tuple(
        base.model_copy(update=dict(zip(LOCALIZATION_GRID, point, strict=True)))
        for point in itertools.product(*LOCALIZATION_GRID.values())
    )


@dataclass(frozen=True)
class Chosen:
    """What won: a trial (its place in the list), localization settings, their held-out mAP."""

    trial: int
    localization: LocalizationSettings
    held_out_map: float


def choose(scores: Mapping[int, Sequence[Sequence[float]]]) -> tuple[int, int, float]:
    """The best trial and option, and their mean over splits, of `scores[trial][split][option]`.

    Of equal ones the first.
    """
    mean, trial, option = max(
        (float(mean), -trial, -option)
        for trial, splits in scores.items()
        for option, mean in enumerate(np.mean(splits, axis=0))
    )
    return -trial, -option, mean


def score_options(
    detect: Callable[[LocalizationSettings], Detections],
    truth: GroundTruth,
    options: Sequence[LocalizationSettings],
) -> list[float]:
    """The mAP that is tuned for, of each localization setting."""
    return [mean_average_precision(truth, detect(option), TUNED_TIOU).average for option in options]


def arm_description(description: BundleDescription, supervision: Supervision) -> BundleDescription:
    """Full supervision learns the classes of each position: its CAS is a probability."""
    if supervision != "frames":
        return description
    kind = description.cas.model_copy(update={"kind": "probability"})
    return description.model_copy(update={"cas": kind})


@dataclass(frozen=True, eq=False)
class Corpus:
    """What every worker process holds."""

    training: tuple[Sample, ...]
    test: tuple[Sample, ...]
    base: Recipe
    description: BundleDescription


_corpus: Corpus | None = None


def _start_worker(corpus: Corpus) -> None:
    global _corpus
    torch.set_num_threads(1)
    _corpus = corpus


def _held() -> Corpus:
    if _corpus is None:
        raise RuntimeError("a worker was not started by pool()")
    return _corpus


def run_trial(trial: Trial, supervision: Supervision, split: int) -> list[float]:
    """Train on one split's larger part; the held-out mAP with each localization setting."""
    corpus = _held()
    kept, held = hold_out(corpus.training, HELD_OUT_FRACTION, split)
    recipe = trial.recipe(corpus.base, seed=split)
    description = arm_description(corpus.description, supervision)
    network = train(kept, recipe, description, supervision=supervision).network
    answers = list(activations(network, held))
    return score_options(
        lambda option: localize_all(
            answers, description.model_copy(update={"localization": option})
        ),
        truth_of(held, description.classes),
        localization_settings(recipe.localization),
    )


def run_final(
    trial: Trial, supervision: Supervision, localization: LocalizationSettings, seed: int
) -> Detections:
    """Train on the whole training split; the test split's detections."""
    corpus = _held()
    recipe = trial.recipe(corpus.base, seed=seed)
    description = arm_description(corpus.description, supervision).model_copy(
        update={"localization": localization}
    )
    network = train(corpus.training, recipe, description, supervision=supervision).network
    return localize_all(activations(network, corpus.test), description)


Key = TypeVar("Key")


class Pool:
    """Worker processes of one thread each."""

    def __init__(self, corpus: Corpus, jobs: int) -> None:
        self._executor = ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(corpus,),
        )

    def run(
        self, tasks: Mapping[Key, tuple[Any, ...]], on_done: Callable[[Key], object] = id
    ) -> dict[Key, Any]:
        """Run each task (a function and its arguments); results in the order of the tasks."""
        futures = {self._executor.submit(*task): key for key, task in tasks.items()}
        results = {}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            on_done(futures[future])
        return {key: results[key] for key in tasks}

    def close(self) -> None:
        """Stop the workers; tasks not begun are dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def pool(corpus: Corpus, jobs: int) -> Iterator[Pool]:
    """A pool that is closed whatever happens."""
    opened = Pool(corpus, jobs)
    try:
        yield opened
    finally:
        opened.close()
