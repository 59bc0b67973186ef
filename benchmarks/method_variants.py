"""The method with one of its parts changed, trained as `backtal_training.trainer` trains it.

An affinity is put in place of the learned one by an embedding whose neighbours have that cosine.
The true one must know the boundaries, in windows too: what lies between two of them travels as a
feature more, which `VariantNetwork` takes off before anything learns from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal_training.ablation_arms import ARMS
from backtal_training.adam import Adam
from backtal_training.batches import Batch, make_batch
from backtal_training.datasets import IntArray, Sample
from backtal_training.losses import Losses, LossSettings, losses
from backtal_training.network import BackTALNetwork, NetworkOutput, NetworkSettings
from backtal_training.settings import Recipe
from backtal_training.tuning import Corpus

# What tells two neighbouring stretches apart, in numbers below MANY.
NUM_STRETCHES, MANY = 2, 3

Affinity = Literal["learned", "one", "zero", "true", "decoys"]


@dataclass(frozen=True)
class Variant:
    """What is changed: the losses' settings, the affinity, and terms of the other branch.

    other_branch: terms by name, and the weights with which they are added once more with the two
    branches changed over. taught: the weight of `neighbour_loss`, which looks at the ground truth.
    """

    title: str
    losses: Mapping[str, float] = field(default_factory=dict)
    affinity: Affinity = "learned"
    other_branch: Mapping[str, float] = field(default_factory=dict)
    taught: float = 0.0


_OFF = {"affinity_weight": 0.0}
VARIANTS: dict[str, Variant] = {
    "method": Variant("the method"),
    "no_affinity_loss": Variant("affinity: learned without its loss", _OFF),
    "affinity_loss_x10": Variant("affinity: its loss ten times", {"affinity_weight": 8.0}),
    "affinity_taught": Variant("affinity: taught the true one", _OFF, taught=1.0),
    "affinity_one": Variant("affinity: 1, a plain convolution", _OFF, "one"),
    "affinity_zero": Variant("affinity: 0 to neighbours, width 1", _OFF, "zero"),
    "affinity_true": Variant("affinity: the true one", _OFF, "true"),
    "affinity_decoys": Variant("affinity: true, the background cut too", _OFF, "decoys"),
    "no_separation": Variant("separation: off", {"separation_weight": 0.0}),
    "separation_x10": Variant("separation: ten times", {"separation_weight": 10.0}),
    "separation_suppressed": Variant(
        "separation: of the suppressed branch",
        {"separation_weight": 0.0},
        other_branch={"separation": 1.0},
    ),
    "hard_negatives_base": Variant(
        "hard negatives of the base branch", other_branch={"hard_negative": 1.0}
    ),
    "hard_negatives": Variant("hard negatives", {"hard_negative_weight": 1.0}),
    "hard_negatives_separation_x10": Variant(
        "hard negatives and separation ten times",
        {"hard_negative_weight": 1.0, "separation_weight": 10.0},
    ),
    "click_x10": Variant("click loss: ten times", {"click_weight": 10.0}),
    "no_click": Variant("click loss: off", {"click_weight": 0.0}),
    "no_click_separation": Variant(
        "click loss and separation: off", {"click_weight": 0.0, "separation_weight": 0.0}
    ),
}


class VariantNetwork(BackTALNetwork):
    """Takes features [B, D + 2, T], of `with_stretches`: no weight sees the last two."""

    def __init__(self, settings: NetworkSettings, affinity: Affinity) -> None:
        super().__init__(settings)
        self._given: GivenEmbedding | None = None
        if affinity != "learned":
            # After the weights are drawn: every variant begins with the same ones.
            self._given = GivenEmbedding(affinity)
            self.add_module("embedding_module", self._given)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> NetworkOutput:
        return super().forward(self._features(features), lengths)

    def infer(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return super().infer(self._features(features))

    def _features(self, features: Tensor) -> Tensor:
        if self._given is not None:
            self._given.stretches = features[:, -NUM_STRETCHES:].long()
        return features[:, :-NUM_STRETCHES]


class GivenEmbedding(nn.Module):
    """Unit vectors that nothing is learned for: neighbours have the cosine that is asked for."""

    def __init__(self, affinity: Affinity) -> None:
        super().__init__()
        self.stretches = torch.empty(0, NUM_STRETCHES, 0, dtype=torch.long)
        self._affinity = affinity

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, E]."""
        true, decoys = self.stretches.unbind(1)
        kinds = {
            "one": torch.zeros_like(true),
            "zero": torch.arange(rows.shape[1]).expand_as(true) % MANY,
            "true": true,
            "decoys": decoys,
        }[self._affinity]
        embedding = functional.one_hot(kinds, MANY).to(rows.dtype)
        return embedding if mask is None else embedding.masked_fill(~mask[..., None], 0.0)


def with_stretches(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples with two features more: numbers that change at every boundary.

    The second changes in the background too, as often as if actions lay there side by side, so that
    a boundary tells of no action.
    """
    lengths = np.concatenate([_action_lengths(sample) for sample in samples])
    return tuple(_with_stretches(sample, lengths) for sample in samples)


def _action_lengths(sample: Sample) -> IntArray:
    """How many positions each stretch of one action class has."""
    starts = np.flatnonzero(np.diff(sample.frame_labels, prepend=-1))
    lengths = np.diff(starts, append=sample.num_positions)
    return lengths[sample.frame_labels[starts] < len(sample.video_labels)]


def _with_stretches(sample: Sample, lengths: IntArray) -> Sample:
    random = np.random.default_rng([*sample.name.encode()])
    drawn = np.cumsum(random.choice(lengths, size=sample.num_positions))
    is_cut = np.diff(sample.frame_labels, prepend=sample.frame_labels[0]) != 0
    is_decoy = np.isin(np.arange(sample.num_positions), drawn) & (
        sample.frame_labels == len(sample.video_labels)
    )
    stretches = [np.cumsum(cuts) % MANY for cuts in (is_cut, is_cut | is_decoy)]
    features = np.concatenate([sample.features, np.stack(stretches).astype(np.float32)])
    return replace(sample, features=features)


def variant_recipe(corpus: Corpus, variant: Variant, seed: int, epochs: int | None) -> Recipe:
    """The corpus's recipe with the variant's losses; `epochs` in place of its own."""
    recipe = ARMS["method"].recipe(corpus.base, seed)
    changed = {**recipe.losses.model_dump(), **variant.losses}
    optimizer = recipe.optimizer.model_copy(update={"epochs": epochs} if epochs else {})
    return recipe.model_copy(
        update={"losses": LossSettings.model_validate(changed), "optimizer": optimizer}
    )


def all_losses(output: NetworkOutput, batch: Batch, recipe: Recipe, variant: Variant) -> Losses:
    """The batch's losses; the total has what the variant adds."""
    of_batch = (batch.video_labels, batch.click_labels, recipe.losses)
    terms = losses(output, *of_batch)
    total = terms.total
    if variant.other_branch:
        swapped = replace(output, base=output.suppressed, suppressed=output.base)
        of_other = losses(swapped, *of_batch)
        for name, weight in variant.other_branch.items():
            total = total + weight * getattr(of_other, name)
    if variant.taught:
        total = total + variant.taught * neighbour_loss(output, batch.frame_labels)
    return replace(terms, total=total)


def neighbour_loss(output: NetworkOutput, frame_labels: Tensor) -> Tensor:
    """What neighbours of one class lack to a cosine of 1, and what those of two have above 0."""
    cosines = (output.embedding[..., :-1] * output.embedding[..., 1:]).sum(dim=1)
    apart = (frame_labels[:, :-1] != frame_labels[:, 1:]) & output.mask[:, 1:]
    within = ~apart & output.mask[:, 1:]
    return ((1 - cosines) * within).sum() / within.sum().clamp(min=1) + (
        cosines.clamp(min=0) * apart
    ).sum() / apart.sum().clamp(min=1)


def train_variant(
    samples: Sequence[Sample],
    corpus: Corpus,
    recipe: Recipe,
    variant: Variant,
    on_epoch: Callable[[int, VariantNetwork, dict[str, float]], object],
) -> VariantNetwork:
    """The last epoch's network, in evaluation mode.

    samples: `with_stretches`. `on_epoch` gets the epoch's number, the network and the mean of each
    loss term. The method itself becomes, to the bit, what `trainer.train` makes of the recipe.
    """
    torch.manual_seed(recipe.seed)
    network = VariantNetwork(
        recipe.network.network(
            feature_dim=corpus.description.feature_dim,
            num_classes=len(corpus.description.classes),
        ),
        variant.affinity,
    )
    settings = recipe.optimizer
    adam = Adam(
        network.parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    for number in range(1, settings.epochs + 1):
        random = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(int(random.integers(2**62)))
        order = random.permutation(len(samples))
        sums = dict.fromkeys(Losses.__dataclass_fields__, 0.0)
        network.train()
        for first in range(0, len(order), settings.batch_videos):
            chosen = [samples[i] for i in order[first : first + settings.batch_videos]]
            batch = make_batch(chosen, recipe.grid.window_positions, random)
            terms = all_losses(answer(network, batch), batch, recipe, variant)
            adam.zero_grad()
            torch.autograd.backward(terms.total)
            adam.step()
            for name in sums:
                sums[name] += float(getattr(terms, name).detach()) * len(chosen) / len(order)
        on_epoch(number, network.eval(), sums)
    return network


def answer(network: VariantNetwork, batch: Batch) -> NetworkOutput:
    """Both branches of a batch."""
    padded = int(batch.lengths.min()) < batch.features.shape[-1]
    output: NetworkOutput = network(batch.features, batch.lengths if padded else None)
    return output
