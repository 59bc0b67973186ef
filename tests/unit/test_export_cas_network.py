from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backtal.networks import OpenNetwork, open_network
from backtal.pipeline import chunked_cas
from backtal.stages import CasOutput
from backtal_export.affinity_forms import FORMS, affinity_parts
from backtal_export.backbones.i3d_layers import HEAD
from backtal_export.cas_network import CasNetwork, cas_onnx
from backtal_export.kinetics400 import kinetics400_cas_onnx
from backtal_export.onnx_file import sha256_of
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.requirements import PROJECT_ROOT

LENGTHS = (1, 2, 3, 5, 50, 333)
BATCHES = (1, 3)


def make_network(layout: str, *, feature_dim: int = 10, hidden_dim: int = 7) -> BackTALNetwork:
    torch.manual_seed(3)
    settings = NetworkSettings(
        layout=layout,
        feature_dim=feature_dim,
        num_classes=4,
        hidden_dim=hidden_dim,
        embedding_hidden_dim=8,
        embedding_dim=5,
        filter_hidden_dim=6,
    )
    return BackTALNetwork(settings).eval()


def session(model_file: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])


# 10, 7 and 2 leave a channel of the released layout on a border between two affinities.
@pytest.mark.parametrize("layout", ["paper", "released"])
@pytest.mark.parametrize(
    ("form", "sizes"),
    [*((form, (10, 7)) for form in FORMS), ("unfold", (12, 2)), ("unfold", (64, 32))],
)
def test_the_model_file_answers_as_torch_at_lengths_it_was_not_traced_with(
    form, layout, sizes
) -> None:
    network = make_network(layout, feature_dim=sizes[0], hidden_dim=sizes[1])
    exported = session(cas_onnx(network, form))
    generator = torch.Generator().manual_seed(1)
    for batch in BATCHES:
        for length in LENGTHS:
            features = torch.randn(batch, sizes[0], length, generator=generator)
            with torch.inference_mode():
                wanted_cas, wanted_magnitude = network.infer(features)
            cas, magnitude = exported.run(["cas", "magnitude"], {"features": features.numpy()})
            assert cas.shape == (batch, 5, length)
            assert magnitude.shape == (batch, length)
            np.testing.assert_allclose(cas, wanted_cas, atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(magnitude, wanted_magnitude, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["paper", "released"])
def test_chunks_with_a_halo_of_4_are_the_whole(layout, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(cas_onnx(make_network(layout)))
    stages = OnlyCas(open_network(path, "onnxruntime", "float32", 1))
    features = np.random.default_rng(2).standard_normal((10, 61)).astype(np.float32)
    whole = stages.cas(features[None])
    for chunk in (1, 7, 60):
        pieces = chunked_cas(stages, features, halo_positions=4, chunk_positions=chunk)
        np.testing.assert_allclose(pieces.cas, whole.cas, atol=1e-6)
        np.testing.assert_allclose(pieces.magnitude, whole.magnitude, atol=1e-6)
    short = chunked_cas(stages, features, halo_positions=3, chunk_positions=7)
    assert np.abs(short.cas - whole.cas).max() > 1e-4


@dataclass(frozen=True)
class OnlyCas:
    """Stages of a bundle that is given features."""

    network: OpenNetwork

    def features(self, stream, clips):
        raise AssertionError("no clips are given")

    def cas(self, features) -> CasOutput:
        return CasOutput(*self.network.run(["cas", "magnitude"], {"features": features}))


def test_the_layouts_answer_differently() -> None:
    features = torch.randn(1, 10, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        paper, released = (
            CasNetwork(make_network(layout))(features)[0] for layout in ("paper", "released")
        )
    assert (paper - released).abs().max() > 0.01


@given(st.integers(1, 40))
def test_released_parts_are_the_published_tile(channels) -> None:
    weighted_by = np.full((channels, 3), -1)
    for tap, start, stop, neighbour in affinity_parts(channels, released=True):
        assert (weighted_by[start:stop, tap] == -1).all()
        weighted_by[start:stop, tap] = neighbour
    np.testing.assert_array_equal(weighted_by.ravel(), np.arange(3 * channels) // channels)


def test_parts_of_a_tap_are_in_the_order_of_channels() -> None:
    for channels in (1, 2, 7, 1024):
        for released in (False, True):
            parts = affinity_parts(channels, released=released)
            assert parts == sorted(parts)
            assert sum(stop - start for _, start, stop, _ in parts) == 3 * channels


@pytest.mark.parametrize("layout", ["paper", "released"])
def test_the_graph_is_what_the_runtime_of_triton_loads(layout) -> None:
    model_file = cas_onnx(make_network(layout))
    model = onnx.load_from_string(model_file)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    # Two of the filter, two of the embedding, two of the base module, the classifier.
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == 7
    assert not any(node.op_type in {"Tile", "Expand", "Loop", "If"} for node in model.graph.node)


def test_the_same_network_gives_the_same_bytes_and_another_does_not() -> None:
    network = make_network("paper")
    first = cas_onnx(network)
    assert sha256_of(first) == sha256_of(cas_onnx(network))
    with torch.no_grad():
        network.classifier_module.conv.weight[0, 0] += 0.001
    assert sha256_of(first) != sha256_of(cas_onnx(network))


def test_the_model_file_names_nothing_of_this_machine() -> None:
    model_file = cas_onnx(make_network("paper"))
    assert b".py" not in model_file
    assert str(PROJECT_ROOT).encode() not in model_file


def test_kinetics_cas_is_the_softmax_of_the_head_at_each_position() -> None:
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((400, 1024)).astype(np.float32) / 10
    bias = generator.standard_normal(400).astype(np.float32)
    weights = {
        f"{HEAD}.conv3d.weight": kernel.reshape(400, 1024, 1, 1, 1),
        f"{HEAD}.conv3d.bias": bias,
    }
    model_file = kinetics400_cas_onnx([weights])
    onnx.checker.check_model(onnx.load_from_string(model_file), full_check=True)
    assert model_file == kinetics400_cas_onnx([weights])
    exported = session(model_file)
    assert [output.name for output in exported.get_outputs()] == ["cas"]
    for batch, length in [(1, 1), (1, 50), (3, 7)]:
        features = generator.standard_normal((batch, 1024, length)).astype(np.float32)
        (cas,) = exported.run(None, {"features": features})
        logits = np.einsum("ck,bkl->bcl", kernel, features) + bias[:, None]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        wanted = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(cas, wanted, atol=1e-5)
