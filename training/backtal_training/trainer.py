"""A training run: batches, Adam, and the epoch that localizes best on held-out videos."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from backtal.errors import InvalidArgument
from backtal.evaluation import mean_average_precision
from backtal.features import FloatArray
from backtal.localization import localize
from backtal.manifest import BundleDescription
from backtal.segments import Segment
from backtal_training.adam import Adam
from backtal_training.batches import Batch, make_batch
from backtal_training.datasets import Sample, hold_out, truth_of
from backtal_training.losses import frame_losses, losses
from backtal_training.network import BackTALNetwork
from backtal_training.settings import Recipe, Supervision


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the mean of each loss term, and the held-out mAP if it was taken."""

    number: int
    losses: dict[str, float]
    held_out_map: float | None
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain data, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: the network of the chosen epoch, in evaluation mode, and all epochs."""

    network: BackTALNetwork
    epochs: tuple[Epoch, ...]
    chosen_epoch: int


def train(
    samples: Sequence[Sample],
    recipe: Recipe,
    description: BundleDescription,
    *,
    supervision: Supervision = "clicks",
    on_epoch: Callable[[Epoch], object] = id,
) -> Run:
    """Train on `samples` by `recipe`; `on_epoch` is called after each epoch.

    The same samples, recipe, thread count and versions give the same weights. Raises
    InvalidArgument where there are no samples or the loss is no longer a number.
    """
    if not samples:
        raise InvalidArgument("there are no videos to train on")
    if supervision == "video_labels":
        samples = [sample.without_clicks() for sample in samples]
    kept, held_out = hold_out(samples, recipe.selection.held_out_fraction, recipe.seed)
    network = _new_network(recipe, description)
    average = copy.deepcopy(network) if recipe.optimizer.ema_decay else network
    best: tuple[float, int, BackTALNetwork] = (-math.inf, 0, average)
    epochs = []
    for number, terms, seconds in _epochs(network, average, kept, recipe, supervision):
        score = None
        if held_out and (
            number % recipe.selection.every_epochs == 0 or number == recipe.optimizer.epochs
        ):
            found = predict(average, held_out, description)
            truth = truth_of(held_out, description.classes)
            score = mean_average_precision(truth, found, recipe.selection.tious).average
            if score > best[0]:
                best = (score, number, copy.deepcopy(average))
        epochs.append(Epoch(number, terms, score, seconds))
        on_epoch(epochs[-1])
    if not held_out:
        best = (-math.inf, recipe.optimizer.epochs, average)
    return Run(best[2].eval(), tuple(epochs), best[1])


def predict(
    network: BackTALNetwork, samples: Sequence[Sample], description: BundleDescription
) -> dict[str, tuple[Segment, ...]]:
    """Each video's segments, through the localization that answers requests.

    Where the description calls the CAS a probability (full supervision), it is the softmax over
    the classes at each position, else the logits as they are.
    """
    return localize_all(activations(network, samples), description)


def localize_all(
    answers: Iterable[tuple[Sample, FloatArray, FloatArray]], description: BundleDescription
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


def activations(
    network: BackTALNetwork, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, FloatArray, FloatArray]]:
    """Each video's raw cas [C+1, L] and feature magnitude [L]."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for sample in samples:
            cas, magnitude = network.infer(torch.from_numpy(sample.features)[None])
            yield sample, cas[0].numpy(), magnitude[0].numpy()
    network.train(was_training)


def _softmax(cas: FloatArray) -> FloatArray:
    return torch.from_numpy(cas).softmax(dim=0).numpy()


def _new_network(recipe: Recipe, description: BundleDescription) -> BackTALNetwork:
    torch.manual_seed(recipe.seed)
    settings = recipe.network.network(
        feature_dim=description.feature_dim, num_classes=len(description.classes)
    )
    return BackTALNetwork(settings)


def _epochs(
    network: BackTALNetwork,
    average: BackTALNetwork,
    samples: Sequence[Sample],
    recipe: Recipe,
    supervision: Supervision,
) -> Iterator[tuple[int, dict[str, float], float]]:
    """Trains; after each epoch its number (from 1), mean loss terms, and seconds."""
    settings = recipe.optimizer
    random = np.random.default_rng(recipe.seed)
    adam = Adam(
        network.parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    steps = 0
    for number in range(1, settings.epochs + 1):
        started = time.perf_counter()
        network.train()
        sums: dict[str, float] = {}
        order = random.permutation(len(samples))
        for first in range(0, len(samples), settings.batch_videos):
            chosen = [samples[i] for i in order[first : first + settings.batch_videos]]
            batch = make_batch(chosen, recipe.grid.window_positions, random)
            terms = _step(network, adam, batch, recipe, supervision)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value * len(chosen) / len(samples)
            steps += 1
            if settings.ema_decay is not None:
                _update(average, network, settings.ema_decay, steps)
        if not math.isfinite(sums["total"]):
            raise InvalidArgument(
                f"the loss became {sums['total']} in epoch {number}: "
                f"learning_rate {settings.learning_rate} may be too high"
            )
        yield number, sums, time.perf_counter() - started


def _step(
    network: BackTALNetwork,
    adam: Adam,
    batch: Batch,
    recipe: Recipe,
    supervision: Supervision,
) -> dict[str, float]:
    padded = int(batch.lengths.min()) < batch.features.shape[-1]
    output = network(batch.features, batch.lengths if padded else None)
    if supervision == "frames":
        terms = {"total": frame_losses(output, batch.frame_labels, recipe.losses)}
    else:
        all_terms = losses(output, batch.video_labels, batch.click_labels, recipe.losses)
        terms = vars(all_terms)
    adam.zero_grad()
    torch.autograd.backward(terms["total"])
    adam.step()
    return {name: value.item() for name, value in terms.items()}


@torch.no_grad()
def _update(average: BackTALNetwork, network: BackTALNetwork, decay: float, steps: int) -> None:
    """Move the average; early on it follows faster, so that the first weights are forgotten."""
    decay = min(decay, steps / (steps + 10))
    for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1 - decay)
