"""A training run: batches, Adam, and the epoch that localizes best on held-out videos."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from backtal.errors import InvalidArgument
from backtal.evaluation import mean_average_precision
from backtal.features import FloatArray
from backtal.localization import localize
from backtal.manifest import BundleDescription
from backtal.segments import Segment
from backtal_training.adam import Adam
from backtal_training.batches import make_batch
from backtal_training.datasets import Sample, hold_out, truth_of
from backtal_training.network import BackTALNetwork
from backtal_training.processes import Processes
from backtal_training.relabel import prepared, relabelled
from backtal_training.schedule import learning_rate
from backtal_training.settings import Recipe, Supervision
from backtal_training.state import (
    Epoch,
    Progress,
    fingerprint,
    load_state,
    restore,
    save_state,
)
from backtal_training.steps import move_average, step

Answer = tuple[Sample, FloatArray, FloatArray]
"""A video, its raw cas [C+1, L] and its feature magnitude [L]."""

ChosenOn = Literal["held-out part of the training split", "test split", "nothing: the last epoch"]


def _ignore(*_: object) -> None:
    """What is called where nobody listens."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: the network of the chosen epoch, in evaluation mode, and all epochs."""

    network: BackTALNetwork
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    chosen_on: ChosenOn


def train(
    samples: Sequence[Sample],
    recipe: Recipe,
    description: BundleDescription,
    *,
    supervision: Supervision = "clicks",
    test_samples: Sequence[Sample] = (),
    on_epoch: Callable[[Epoch], object] = _ignore,
    on_answers: Callable[[int, Sequence[Answer]], object] = _ignore,
    processes: Processes | None = None,
    state_path: Path | None = None,
    save_every_seconds: float = 30.0,
) -> Run:
    """Train on `samples` by `recipe`.

    The same samples, recipe, number of processes, thread count and versions give the same
    weights, also where the run was killed and goes on from `state_path`: there the state is kept
    after an epoch, at most every `save_every_seconds`.

    `test_samples` are looked at only where the recipe chooses the epoch on the test split.
    `on_epoch` is called in the first process after each epoch, for the epochs before a kill too;
    `on_answers` with the number and the held-out videos' answers of each evaluated epoch.

    Raises InvalidArgument where there are no samples or the loss is no longer a number, and
    InvalidFile where `state_path` holds the state of another run.
    """
    if not samples:
        raise InvalidArgument("there are no videos to train on")
    if supervision == "video_labels":
        samples = [sample.without_clicks() for sample in samples]
    kept, held_out, chosen_on = _split(samples, test_samples, recipe)
    run = _Training(kept, recipe, description, supervision, processes or Processes())
    if state_path is not None:
        run.resume(state_path, held_out)
    for epoch in run.progress.epochs:
        on_epoch(epoch)
    saved = time.monotonic()
    while not run.is_over():
        epoch, answers = run.next_epoch(held_out)
        if run.processes.is_first:
            on_epoch(epoch)
            if answers:
                on_answers(epoch.number, answers)
        due = time.monotonic() - saved >= save_every_seconds
        if state_path is not None and due and run.processes.is_first:
            save_state(state_path, run.progress, run.tensors())
            saved = time.monotonic()
    run.processes.wait()
    chosen = run.progress.best_epoch if held_out else len(run.progress.epochs)
    network = run.best if held_out else run.average
    return Run(network.eval(), run.progress.epochs, chosen, chosen_on)


def _split(
    samples: Sequence[Sample], test_samples: Sequence[Sample], recipe: Recipe
) -> tuple[Sequence[Sample], Sequence[Sample], ChosenOn]:
    selection = recipe.selection
    if selection.on_test_split:
        if not test_samples:
            raise InvalidArgument("selection.on_test_split is set, but there are no test videos")
        return samples, test_samples, "test split"
    kept, held_out = hold_out(samples, selection.held_out_fraction, recipe.seed)
    if not held_out:
        return kept, held_out, "nothing: the last epoch"
    return kept, held_out, "held-out part of the training split"


class _Training:
    """The run's networks and optimizer, epoch by epoch."""

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: Recipe,
        description: BundleDescription,
        supervision: Supervision,
        processes: Processes,
    ) -> None:
        self.processes = processes
        self.progress = Progress("")
        if supervision != "frames":
            samples = prepared(samples, recipe.relabel)
        self._samples, self._recipe = samples, recipe
        self._description, self._supervision = description, supervision
        self._network = _new_network(recipe, description).to(processes.device)
        averaged = recipe.optimizer.ema_decay is not None
        self.average = copy.deepcopy(self._network) if averaged else self._network
        self.best = copy.deepcopy(self.average)
        self._adam = Adam(
            self._network.parameters(),
            learning_rate=recipe.optimizer.learning_rate,
            weight_decay=recipe.optimizer.weight_decay,
        )

    def resume(self, path: Path, held_out: Sequence[Sample]) -> None:
        """Go on from the state at `path`, if there is one."""
        told = fingerprint(
            self._samples, held_out, self._recipe, self._supervision, self.processes.count
        )
        self.progress = Progress(told)
        if path.exists():
            self.progress, saved = load_state(path, told)
            restore(self.tensors(), saved, path)
            self._adam.num_steps = self.progress.num_steps
        self.processes.wait()

    def tensors(self) -> dict[str, Tensor]:
        """The run's tensors themselves, by name."""
        networks = {"network": self._network, "best": self.best}
        if self.average is not self._network:
            networks["average"] = self.average
        named = {
            f"{kind}.{name}": value
            for kind, network in networks.items()
            for name, value in network.state_dict().items()
        }
        return named | self._adam.moments

    def is_over(self) -> bool:
        """Whether all epochs are done, or there was none better for too long."""
        patience = self._recipe.selection.patience
        waited = self.progress.num_evaluations_since_best
        tired = patience is not None and self.progress.best_epoch > 0 and waited >= patience
        return tired or len(self.progress.epochs) >= self._recipe.optimizer.epochs

    def next_epoch(self, held_out: Sequence[Sample]) -> tuple[Epoch, Sequence[Answer]]:
        """One epoch more, and its answers where it was evaluated in this process."""
        number = len(self.progress.epochs) + 1
        started = time.perf_counter()
        terms = self._pass(number)
        score, answers = None, []
        every = self._recipe.selection.every_epochs
        if held_out and (number % every == 0 or number == self._recipe.optimizer.epochs):
            if self.processes.is_first:
                answers = list(activations(self.average, held_out))
                score = self._score(answers, held_out)
            score = self.processes.from_first(score)
        epoch = Epoch(number, terms, score, time.perf_counter() - started)
        better = score is not None and score > self.progress.best_score
        if better:
            self.best.load_state_dict(self.average.state_dict())
        self.progress = replace(
            self.progress,
            num_steps=self._adam.num_steps,
            epochs=(*self.progress.epochs, epoch),
            best_epoch=number if better else self.progress.best_epoch,
        )
        return epoch, answers

    def _score(self, answers: Sequence[Answer], held_out: Sequence[Sample]) -> float:
        truth = truth_of(held_out, self._description.classes)
        found = localize_all(answers, self._description)
        return mean_average_precision(truth, found, self._recipe.selection.tious).average

    def _pass(self, number: int) -> dict[str, float]:
        """Every video once; the mean of each loss term."""
        recipe, settings = self._recipe, self._recipe.optimizer
        random = np.random.default_rng((recipe.seed, number))
        # Dropout: other masks in each epoch and process, the same ones when an epoch is repeated.
        torch.manual_seed(int(random.integers(2**62)) + self.processes.rank)
        samples = self._samples_of(number)
        order = random.permutation(len(samples))
        firsts = range(0, len(order), settings.batch_videos)
        sums: dict[str, Tensor] = {}
        self._network.train()
        for first in firsts:
            chosen = [samples[i] for i in order[first : first + settings.batch_videos]]
            batch = make_batch(chosen, recipe.grid.window_positions, random, recipe.time_scales)
            self._adam.learning_rate = learning_rate(settings, self._adam.num_steps, len(firsts))
            terms = step(
                self._network, self._adam, batch, recipe, self._supervision, self.processes
            )
            for name, value in terms.items():
                weighted = value * (len(chosen) / len(order))
                sums[name] = sums[name] + weighted if name in sums else weighted
            if settings.ema_decay is not None:
                move_average(self.average, self._network, settings.ema_decay, self._adam.num_steps)
        return self._finite(sums, number)

    def _samples_of(self, number: int) -> Sequence[Sample]:
        """What epoch `number` learns from: from some epoch on, as the teacher relabels it."""
        settings = self._recipe.relabel
        is_weak = self._supervision != "frames"
        if is_weak and settings.needs_teacher and number >= settings.from_epoch:
            return relabelled(list(activations(self.average, self._samples)), settings)
        return self._samples

    def _finite(self, sums: dict[str, Tensor], number: int) -> dict[str, float]:
        """The sums over the processes as numbers; refused where the loss is none."""
        values = self.processes.sum(torch.stack(list(sums.values()))).tolist()
        means = dict(zip(sums, values, strict=True))
        if not math.isfinite(means["total"]):
            raise InvalidArgument(
                f"the loss became {means['total']} in epoch {number}: learning_rate "
                f"{self._recipe.optimizer.learning_rate} may be too high"
            )
        return means


def predict(
    network: BackTALNetwork, samples: Sequence[Sample], description: BundleDescription
) -> dict[str, tuple[Segment, ...]]:
    """Each video's segments, through the localization that answers requests.

    Where the description calls the CAS a probability (full supervision), it is the softmax over
    the classes at each position, else the logits as they are.
    """
    return localize_all(activations(network, samples), description)


def localize_all(
    answers: Iterable[Answer], description: BundleDescription
) -> dict[str, tuple[Segment, ...]]:
    """The segments of what `activations` gave."""
    is_probability = description.cas.kind == "probability"
    return {
        sample.name: localize(
            _softmax(cas) if is_probability else cas,
            magnitude,
            description=description,
            duration_seconds=sample.duration_seconds,
        )
        for sample, cas, magnitude in answers
    }


def activations(network: BackTALNetwork, samples: Sequence[Sample]) -> Iterator[Answer]:
    """Each video's raw cas [C+1, L] and feature magnitude [L]."""
    was_training = network.training
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        for sample in samples:
            cas, magnitude = network.infer(torch.from_numpy(sample.features)[None].to(device))
            yield sample, cas[0].cpu().numpy(), magnitude[0].cpu().numpy()
    network.train(was_training)


def _softmax(cas: FloatArray) -> FloatArray:
    return torch.from_numpy(cas).softmax(dim=0).numpy()


def _new_network(recipe: Recipe, description: BundleDescription) -> BackTALNetwork:
    torch.manual_seed(recipe.seed)
    settings = recipe.network.network(
        feature_dim=description.feature_dim, num_classes=len(description.classes)
    )
    return BackTALNetwork(settings)
