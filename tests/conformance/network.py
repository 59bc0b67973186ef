"""The network and settings that a reference vector was made with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backtal_training.checkpoint import load_weights
from backtal_training.losses import LossSettings
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.conformance.conftest import Reference

WEIGHT_DECAY = 5e-4

_LOSSES = {
    "THUMOS14": LossSettings(),
    "ActivityNet1.2": LossSettings(
        top_k_ratio=0.6, separation_top_k_ratio=0.2, separation_weight=0.1
    ),
    "HACS": LossSettings(top_k_ratio=0.6, separation_top_k_ratio=0.2, separation_weight=0.1),
}
_LEARNING_RATES = {"THUMOS14": 1e-4, "ActivityNet1.2": 2e-4, "HACS": 1e-4}


def loss_settings(reference: Reference) -> LossSettings:
    if reference.dataset not in _LOSSES:
        pytest.fail(f"{reference.name}: dataset {reference.dataset!r}, known: {list(_LOSSES)}")
    return _LOSSES[reference.dataset]


def learning_rate(reference: Reference) -> float:
    return _LEARNING_RATES[reference.dataset]


def build(reference: Reference) -> BackTALNetwork:
    """The network with the reference's weights, whose widths are read from their shapes."""
    weights = reference.weights()
    hidden_dim, feature_dim, _ = weights["base_module.conv_1.weight"].shape
    embedding_dim, embedding_hidden_dim, _ = weights["embedding_module.conv_2.weight"].shape
    network = BackTALNetwork(
        NetworkSettings(
            layout="released",
            feature_dim=feature_dim,
            num_classes=weights["classifier_module.conv.weight"].shape[0] - 1,
            hidden_dim=hidden_dim,
            embedding_hidden_dim=embedding_hidden_dim,
            embedding_dim=embedding_dim,
            filter_hidden_dim=weights["filter_module.conv_1.0.weight"].shape[0],
            dropout=reference.meta["dropout"],
        )
    )
    tensors = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    load_weights(network, tensors, source=reference.name)
    return network


def tensor(reference: Reference, name: str) -> torch.Tensor:
    return torch.from_numpy(reference.arrays[name])


def relative_error(ours: torch.Tensor, theirs: NDArray[np.float32]) -> float:
    """The largest difference, in parts of the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.detach().numpy() - theirs).max() / np.abs(theirs).max())
