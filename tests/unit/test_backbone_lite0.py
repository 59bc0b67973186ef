from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from backtal.errors import InvalidFile, Unavailable
from backtal.runtime import PROVIDERS, session_options
from backtal_export.backbones.fetched import Weights
from backtal_export.backbones.lite0 import EfficientNetLite0
from backtal_export.backbones.lite0_layers import (
    FEATURE_DIM,
    FRAME_FEATURE_DIM,
    lite0_blocks,
    lite0_shapes,
)
from backtal_export.backbones.lite0_onnx import lite0_onnx
from backtal_export.backbones.lite0_weights import lite0_weights
from backtal_export.onnx_file import sha256_of
from tests.requirements import require

# A checkpoint names its backbone by this hash: another one makes every checkpoint's useless.
LITE0_SHA256 = "ba01c5046237bf9e89953d3c2834eeca7b2915df349a066869297cdd03f160db"


@pytest.fixture(scope="module")
def seeded() -> Weights:
    generator = np.random.default_rng(3)
    weights: Weights = {}
    for name, shape in lite0_shapes().items():
        if len(shape) == 4:
            array = generator.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", ".weight")):
            array = generator.uniform(0.5, 1.5, shape)
        else:
            array = generator.uniform(-0.2, 0.2, shape)
        weights[name] = array.astype(np.float32)
    return weights


def onnx_features(model_file: bytes, clips: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model_file, session_options(1), providers=list(PROVIDERS)
    )
    (features,) = session.run(["features"], {"clips": clips})
    return features


def some_clips(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 224, 224, 3), np.uint8)


def test_the_table_is_the_papers() -> None:
    blocks = lite0_blocks()
    assert len(blocks) == 18
    assert sum(block.residual for block in blocks) == 9
    convolutions = [conv for block in blocks for conv in block.convolutions]
    assert len(convolutions) == 49
    # A frame of 224 pixels is halved five times.
    assert np.prod([conv.stride for conv in convolutions]) == 32


@pytest.mark.parametrize("count", [1, 2])
def test_the_graph_answers_as_the_port_whatever_the_number_of_clips(seeded, count) -> None:
    clips = some_clips(count)
    features = onnx_features(lite0_onnx(seeded), clips)
    with torch.inference_mode():
        wanted = EfficientNetLite0(seeded)(torch.from_numpy(clips)).numpy()
    assert features.shape == (count, FEATURE_DIM)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(features, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_still_clip_has_no_change_and_only_four_frames_count(seeded) -> None:
    still = np.repeat(some_clips(1)[:, :1], 16, axis=1)
    model_file = lite0_onnx(seeded)
    features = onnx_features(model_file, still)[0]
    assert np.abs(features[:FRAME_FEATURE_DIM]).max() > 0.1
    np.testing.assert_allclose(features[FRAME_FEATURE_DIM:], 0, atol=1e-4)
    other = still.copy()
    other[:, [0, 1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15]] = 0
    np.testing.assert_array_equal(onnx_features(model_file, other)[0], features)


def test_the_file_is_whole_and_the_same_twice(seeded) -> None:
    model_file = lite0_onnx(seeded)
    assert model_file == lite0_onnx(seeded)
    model = onnx.load_from_string(model_file)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_weights_of_another_network_are_refused_by_name(seeded) -> None:
    wrong = {**seeded, "_blocks.3._bn1.bias": np.zeros(3, np.float32)}
    with pytest.raises(
        InvalidFile, match=r"_blocks\.3\._bn1\.bias has shape \(3,\), wanted is \(1"
    ):
        EfficientNetLite0(wrong)


def test_the_real_weights_give_the_file_that_checkpoints_name() -> None:
    try:
        weights = lite0_weights(say=lambda _: None)
    except Unavailable as error:
        require("weights", error.message)
    assert sha256_of(lite0_onnx(weights)) == LITE0_SHA256
