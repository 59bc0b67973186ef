"""Both branches, embedding, filter, scores and magnitude against the released implementation."""

from __future__ import annotations

import pytest
import torch

from backtal_training.losses import video_scores
from backtal_training.network import BackTALNetwork
from tests.conformance.conftest import Reference
from tests.conformance.network import build, loss_settings, relative_error, tensor

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network(reference: Reference) -> BackTALNetwork:
    return build(reference).eval()


def test_parameters_have_the_released_names_in_their_order(
    network: BackTALNetwork, reference: Reference
) -> None:
    assert [[name, list(value.shape)] for name, value in network.named_parameters()] == [
        list(pair) for pair in reference.meta["weights"]
    ]


def test_inference(network: BackTALNetwork, reference: Reference) -> None:
    features = tensor(reference, "features")
    with torch.no_grad():
        cas, magnitude = network.infer(features)
    mask = torch.ones(features.shape[0], features.shape[2], dtype=torch.bool)
    scores = video_scores(cas, mask, loss_settings(reference).top_k_ratio).softmax(dim=1)
    assert relative_error(cas, reference.arrays["eval_cas"]) < TOLERANCE
    assert relative_error(magnitude, reference.arrays["eval_feature_norm"]) < TOLERANCE
    assert relative_error(scores, reference.arrays["eval_score"]) < TOLERANCE


def test_training_mode(network: BackTALNetwork, reference: Reference) -> None:
    with torch.no_grad():
        output = network.train()(tensor(reference, "features"))
    ratio = loss_settings(reference).top_k_ratio
    answers = {
        "train_cas_base": output.base.cas,
        "train_cas_supp": output.suppressed.cas,
        "train_score_base": video_scores(output.base.cas, output.mask, ratio),
        "train_score_supp": video_scores(output.suppressed.cas, output.mask, ratio),
        "train_embedding": output.embedding,
        "train_foreground": output.foreground,
    }
    errors = {name: relative_error(ours, reference.arrays[name]) for name, ours in answers.items()}
    assert all(error < TOLERANCE for error in errors.values()), errors
