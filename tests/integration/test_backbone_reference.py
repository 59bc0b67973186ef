"""I3D against what JAX answered, and its ONNX graph against the torch port."""

from __future__ import annotations

import av
import numpy as np
import onnx
import pytest
import torch

from backtal.networks import open_network
from backtal.runtime import PROVIDERS, session_options
from backtal_export.backbones.i3d import I3D
from backtal_export.backbones.i3d_layers import HEAD
from backtal_export.backbones.i3d_onnx import i3d_flow_onnx, i3d_rgb_onnx
from backtal_export.gates import cosines
from backtal_export.kinetics400 import kinetics400_cas_onnx, kinetics400_classes
from backtal_export.onnx_file import sha256_of
from tests.i3d_weights import real_weights, seeded_weights
from tests.requirements import shared_folder

pytestmark = pytest.mark.slow

# A checkpoint names its backbone by this hash: another one makes every checkpoint's useless.
I3D_RGB_SHA256 = "95cc60758c4cc3dcb1a27d8329f2110fd48d9839de74f2f4f01e426a96d3d66c"


@pytest.fixture(scope="module")
def cricket() -> np.ndarray:
    """The first 64 frames of the reference GIF, uint8 [64, 224, 224, 3]."""
    path = shared_folder() / "media/i3d/v_CricketShot_g04_c01_rgb.gif"
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames[:64])


def onnx_session(model_file: bytes):
    import onnxruntime

    return onnxruntime.InferenceSession(model_file, session_options(), providers=list(PROVIDERS))


def test_the_port_answers_as_jax_head_included(cricket) -> None:
    wanted = np.load(shared_folder() / "media/i3d/jax_flax_logits_first64frames.npy")
    network = I3D.from_weights(real_weights())
    with torch.inference_mode():
        logits = network.kinetics_logits(torch.from_numpy(cricket[None])).numpy()
    np.testing.assert_allclose(logits, wanted.reshape(1, 400), atol=1e-4, rtol=0)
    assert kinetics400_classes()[logits.argmax()] == "playing cricket"


@pytest.mark.parametrize(("precision", "lowest"), [("float32", 1 - 1e-9), ("bfloat16", 0.9999)])
def test_openvino_answers_within_the_gate_on_real_clips(
    cricket, tmp_path, precision, lowest
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(i3d_rgb_onnx(real_weights()))
    clips = np.stack([cricket[:16], cricket[16:32]])
    wanted, found = (
        open_network(path, *runtime).run(["features"], {"clips": clips})[0]
        for runtime in [("onnxruntime", "float32"), ("openvino", precision)]
    )
    assert cosines(wanted, found).min() >= lowest


def test_the_exported_pair_answers_as_the_port_on_a_clip(cricket) -> None:
    weights = real_weights()
    clips = cricket[None, 16:32]
    (features,) = onnx_session(i3d_rgb_onnx(weights)).run(None, {"clips": clips})
    head = onnx_session(kinetics400_cas_onnx([weights]))
    (cas,) = head.run(None, {"features": features[:, :, None]})
    with torch.inference_mode():
        logits = I3D.from_weights(weights).kinetics_logits(torch.from_numpy(clips))
    np.testing.assert_allclose(cas[:, :, 0], torch.softmax(logits, 1), atol=1e-4)
    assert kinetics400_classes()[int(cas.argmax())] == "playing cricket"


def test_the_real_model_file_is_the_one_that_checkpoints_name() -> None:
    assert sha256_of(i3d_rgb_onnx(real_weights())) == I3D_RGB_SHA256


def test_the_graph_answers_as_the_port_whatever_the_number_of_clips() -> None:
    weights = seeded_weights()
    session = onnx_session(i3d_rgb_onnx(weights))
    network = I3D.from_weights(weights)
    generator = np.random.default_rng(0)
    for num_clips in (1, 3):
        clips = generator.integers(0, 256, (num_clips, 16, 224, 224, 3), np.uint8)
        (features,) = session.run(["features"], {"clips": clips})
        with torch.inference_mode():
            wanted = network(torch.from_numpy(clips)).numpy()
        assert features.shape == (num_clips, 1024)
        # Else a graph of zeros would pass.
        assert wanted.std() > 0.01
        np.testing.assert_allclose(features, wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_flow_graph_answers_as_the_port_and_cuts_large_motion() -> None:
    weights = seeded_weights(2)
    session = onnx_session(i3d_flow_onnx(weights))
    flow = np.random.default_rng(0).normal(0, 15, (2, 16, 224, 224, 2)).astype(np.float32)
    (features,) = session.run(["features"], {"clips": flow})
    with torch.inference_mode():
        wanted = I3D.from_weights(weights, 2)(torch.from_numpy(flow)).numpy()
    assert features.shape == (2, 1024)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(features, wanted, atol=1e-4 * np.abs(wanted).max())
    (cut,) = session.run(["features"], {"clips": flow.clip(-20, 20)})
    np.testing.assert_array_equal(cut, features)
    assert np.abs(flow).max() > 40


def test_the_graph_is_what_the_runtime_of_triton_loads() -> None:
    model_file = i3d_rgb_onnx(seeded_weights())
    assert model_file == i3d_rgb_onnx(seeded_weights())
    model = onnx.load_from_string(model_file)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 57
    assert not {"BatchNormalization", "Pad"} & set(kinds)
    assert not any(HEAD in tensor.name for tensor in model.graph.initializer)
