"""Losses, gradients and Adam steps against the released implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backtal_training.adam import Adam
from backtal_training.losses import Losses, losses
from backtal_training.network import BackTALNetwork
from tests.conformance.conftest import Reference
from tests.conformance.network import WEIGHT_DECAY, build, learning_rate, loss_settings, tensor


def _losses(network: BackTALNetwork, reference: Reference) -> Losses:
    return losses(
        network(tensor(reference, "features")),
        tensor(reference, "video_label"),
        tensor(reference, "click_label"),
        loss_settings(reference),
    )


def test_losses_and_gradients(reference: Reference) -> None:
    network = build(reference).train()
    terms = _losses(network, reference)
    answers = {
        "loss_total": terms.total,
        "loss_base": terms.base,
        "loss_supp": terms.suppressed,
        "loss_norm": terms.norm,
        "loss_embedding": terms.affinity,
    }
    ours = {name: value.item() for name, value in answers.items()}
    assert ours == pytest.approx({name: float(reference.arrays[name]) for name in ours}, rel=1e-3)

    torch.autograd.backward(terms.total)
    norms = [
        float(parameter.grad.norm())
        for parameter in network.parameters()
        if parameter.grad is not None
    ]
    np.testing.assert_allclose(norms, reference.arrays["grad_norms"], rtol=1e-3)


def test_adam_steps(reference: Reference) -> None:
    network = build(reference).train()
    adam = Adam(
        network.parameters(), learning_rate=learning_rate(reference), weight_decay=WEIGHT_DECAY
    )
    ours = []
    for _ in reference.arrays["adam_losses"]:
        adam.zero_grad()
        total = _losses(network, reference).total
        torch.autograd.backward(total)
        adam.step()
        ours.append(float(total.detach()))
    np.testing.assert_allclose(ours, reference.arrays["adam_losses"], rtol=1e-2)
