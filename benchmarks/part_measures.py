"""What a trained network's parts do: score gaps at clicks, cosines at boundaries, gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from method_variants import NUM_STRETCHES, Variant, VariantNetwork, all_losses, answer
from numpy.typing import NDArray
from torch import Tensor

from backtal_training.batches import make_batch
from backtal_training.datasets import Sample
from backtal_training.losses import Losses, LossSettings, top_k_members
from backtal_training.network import NetworkOutput
from backtal_training.settings import Recipe

Doubles = NDArray[np.float64]

WEIGHTS = {
    "base": None,
    "suppressed": None,
    "click": "click_weight",
    "separation": "separation_weight",
    "affinity": "affinity_weight",
}
GRADIENT_BATCHES = 4
# At most, of a video: all pairs of them are looked at.
FAR_POSITIONS = 200


def score_gaps(
    network: VariantNetwork, samples: Sequence[Sample], settings: LossSettings
) -> dict[str, float]:
    """Of both branches, over the videos' own classes: how far clicks lie below the top k.

    gap: the top-k mean less the mean at the clicks. left: what of the separation's gradient is
    left, sigmoid(-gap). within: the part of the clicks less than the hard negatives' margin below.
    """
    found: dict[str, list[float]] = {}
    for sample in samples:
        if not len(sample.click_positions):
            continue
        output = _whole(network, sample)
        for name, branch in (("base", output.base), ("suppressed", output.suppressed)):
            own = branch.cas[0, :-1][torch.from_numpy(sample.video_labels > 0)].numpy()
            count = max(1, int(own.shape[1] * settings.separation_top_k_ratio))
            top = np.sort(own, axis=1)[:, -count:].mean(axis=1)
            clicked = own[:, sample.click_positions]
            for of_class, mean in zip(clicked, top, strict=True):
                gap = float(mean - of_class.mean())
                found.setdefault(f"{name}.gap", []).append(gap)
                found.setdefault(f"{name}.left", []).append(1 / (1 + np.exp(gap)))
                found.setdefault(f"{name}.within", []).extend(
                    (of_class > mean - settings.hard_negative_margin).astype(float).tolist()
                )
    return {name: float(np.mean(values)) for name, values in found.items()}


def boundaries(network: VariantNetwork, samples: Sequence[Sample]) -> dict[str, float]:
    """How well a cosine tells neighbours of one class from those on two sides of a boundary.

    auc: the chance that the former have the greater cosine, of the embedding and of the features as
    they are; the embedding's mean on both; the part of the neighbours that lie across. far_auc: of
    positions anywhere in a video, an action's and its kind against an action's and background.
    """
    learned, raw, across, far, apart_far = [], [], [], [], []
    for sample in samples:
        embedding, labels = _whole(network, sample).embedding[0].numpy(), sample.frame_labels
        features = sample.features[:-NUM_STRETCHES]
        features = features / np.linalg.norm(features, axis=0).clip(1e-12)
        learned.append((embedding[:, :-1] * embedding[:, 1:]).sum(axis=0))
        raw.append((features[:, :-1] * features[:, 1:]).sum(axis=0))
        across.append(labels[:-1] != labels[1:])
        some = slice(None, None, 1 + len(labels) // FAR_POSITIONS)
        acting = labels[some] < len(sample.video_labels)
        cosines = embedding[:, some].T @ embedding[:, some]
        counted = np.triu(acting[:, None] | acting, k=1)
        far.append(cosines[counted])
        apart_far.append((labels[some, None] != labels[some])[counted])
    cosines, apart = np.concatenate(learned), np.concatenate(across)
    return {
        "across": float(apart.mean()),
        "auc": auc(cosines, apart),
        "features_auc": auc(np.concatenate(raw), apart),
        "far_auc": auc(np.concatenate(far), np.concatenate(apart_far)),
        "cosine_within": float(cosines[~apart].mean()),
        "cosine_across": float(cosines[apart].mean()),
    }


def compared(network: VariantNetwork, samples: Sequence[Sample], settings: LossSettings) -> float:
    """The part of the neighbours across a boundary that the affinity loss sets against each other.

    One of the two is clicked, the other among the suppressed CAS's top k of a class of the video's.
    """
    found = []
    for sample in samples:
        output = _whole(network, sample)
        members = top_k_members(output.suppressed.cas, output.mask, settings.top_k_ratio)
        is_action = members[0, :-1][torch.from_numpy(sample.video_labels > 0)].any(dim=0).numpy()
        is_click = np.isin(np.arange(sample.num_positions), sample.click_positions)
        both = (is_action[:-1] & is_click[1:]) | (is_click[:-1] & is_action[1:])
        found.append(both[sample.frame_labels[:-1] != sample.frame_labels[1:]])
    return float(np.concatenate(found).mean())


def auc(values: Doubles, is_low: NDArray[np.bool_]) -> float:
    """The chance that a value that is to be low is below one that is not; equals count half."""
    others = np.sort(values[~is_low])
    below, upto = (np.searchsorted(others, values[is_low], side) for side in ("left", "right"))
    return 1 - float((below + upto).mean() / 2 / len(others))


def gradients(
    network: VariantNetwork, samples: Sequence[Sample], recipe: Recipe, variant: Variant
) -> dict[str, float]:
    """Of each weighted term, the norm of its gradient for the trunk and for the embedding.

    The trunk is the base module and the classifier. Cosines tell which way the separation pulls
    the trunk, beside the click loss and beside the video label's. Means over batches, as training
    makes them, but for dropout.
    """
    trunk = [*network.base_module.parameters(), *network.classifier_module.parameters()]
    embedding = list(network.embedding_module.parameters())
    size, random = recipe.optimizer.batch_videos, np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for first in range(0, GRADIENT_BATCHES * size, size):
        batch = make_batch(samples[first : first + size], recipe.grid.window_positions, random)
        terms = all_losses(answer(network, batch), batch, recipe, variant)
        pulls = {}
        for name, key in WEIGHTS.items():
            weight = 1.0 if key is None else getattr(recipe.losses, key)
            pulls[name] = weight * _gradient(terms, name, trunk)
            found.setdefault(f"trunk.{name}", []).append(float(pulls[name].norm()))
            if embedding:
                on_embedding = float(weight * _gradient(terms, name, embedding).norm())
                found.setdefault(f"embedding.{name}", []).append(on_embedding)
        for other in ("click", "base"):
            cosine = torch.cosine_similarity(pulls["separation"], pulls[other], dim=0)
            found.setdefault(f"cosine.separation.{other}", []).append(float(cosine))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _gradient(terms: Losses, name: str, parameters: Sequence[Tensor]) -> Tensor:
    term: Tensor = getattr(terms, name)
    if not term.requires_grad:
        return torch.zeros(sum(one.numel() for one in parameters))
    pulled = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros(one.numel()) if pull is None else pull.flatten()
            for one, pull in zip(parameters, pulled, strict=True)
        ]
    )


def _whole(network: VariantNetwork, sample: Sample) -> NetworkOutput:
    with torch.inference_mode():
        output: NetworkOutput = network(torch.from_numpy(sample.features)[None])
    return output
