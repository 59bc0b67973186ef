from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backtal.errors import InvalidArgument, InvalidFile, MissingDependency, NotFound
from backtal.manifest import MANIFEST_NAME, Manifest, Network
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle, num_cores, session_options
from tests.made_videos import steady
from tests.unit.fake_bundle import FEATURE_DIM, PLAN, fake_manifest

WEIGHTS = np.random.default_rng(0).normal(size=(3, FEATURE_DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one bundle, `fake`: mean colours times a matrix, and a 1x1 CAS."""
    folder = tmp_path_factory.mktemp("repository")
    manifest = fake_manifest().model_copy(
        update={
            "backbones": {"rgb": _write(folder, "rgb", _backbone())},
            "cas": _write(folder, "cas", _cas()),
        }
    )
    (folder / "fake" / "1").mkdir(parents=True)
    manifest.save(folder / "fake" / "1" / MANIFEST_NAME)
    return folder


@pytest.fixture
def manifest(repository: Path) -> Manifest:
    return load_bundle(repository, "fake")


def test_features_and_cas_are_the_networks(repository: Path, manifest: Manifest) -> None:
    stages = OnnxStages(repository, manifest, threads=1)
    clips = np.random.default_rng(1).integers(0, 256, (3, 4, 24, 24, 3)).astype(np.uint8)
    features = stages.features("rgb", clips)
    expected = clips.mean(axis=(1, 2, 3)).astype(np.float32) @ WEIGHTS
    np.testing.assert_allclose(features, expected, rtol=1e-4)
    assert features.dtype == np.float32
    output = stages.cas(features.T[None])
    np.testing.assert_allclose(output.cas[0], features.T[:2], rtol=1e-6)
    assert output.magnitude is not None
    np.testing.assert_allclose(output.magnitude[0], np.linalg.norm(features, axis=1), rtol=1e-5)


def test_the_pipeline_runs_on_it_and_again_to_the_bit(repository: Path, manifest: Manifest) -> None:
    video = steady(30)
    answers = [
        Pipeline(manifest, OnnxStages(repository, manifest, threads=1)).run(Request(video=video))
        for _ in range(2)
    ]
    assert answers[0].features.values.shape[0] == FEATURE_DIM
    np.testing.assert_array_equal(answers[0].cas, answers[1].cas)
    assert answers[0].segments == answers[1].segments
    assert answers[0].features.provenance.clip_plan == PLAN


def test_a_network_is_loaded_only_when_it_is_used(repository: Path, manifest: Manifest) -> None:
    lost = manifest.model_copy(update={"cas": Network(model="lost", sha256="0" * 64)})
    stages = OnnxStages(repository, lost, threads=1)
    stages.features("rgb", np.zeros((1, 4, 24, 24, 3), np.uint8))
    with pytest.raises(NotFound, match="the network lost"):
        stages.cas(np.zeros((1, FEATURE_DIM, 3), np.float32))


def test_wrong_names_and_files_are_told(repository: Path, manifest: Manifest) -> None:
    with pytest.raises(NotFound, match=r"no bundle 'other'.*it has: fake"):
        load_bundle(repository, "other")
    with pytest.raises(InvalidArgument, match="stream is 'flow', allowed are rgb"):
        OnnxStages(repository, manifest).features("flow", np.zeros((1, 4, 24, 24, 3), np.uint8))
    with pytest.raises(InvalidArgument, match="threads is 0"):
        OnnxStages(repository, manifest, threads=0)
    (repository / "text" / "1").mkdir(parents=True, exist_ok=True)
    (repository / "text" / "1" / "model.onnx").write_text("no network")
    broken = manifest.model_copy(update={"cas": Network(model="text", sha256="0" * 64)})
    with pytest.raises(InvalidFile, match=r"text/1/model\.onnx is no network"):
        OnnxStages(repository, broken).cas(np.zeros((1, FEATURE_DIM, 3), np.float32))


def test_threads_are_the_cores_unless_told() -> None:
    assert session_options().intra_op_num_threads == num_cores()
    assert session_options(3).intra_op_num_threads == 3
    assert num_cores() >= 1


def test_a_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"backtal\[local\]"):
        session_options()


def _write(folder: Path, name: str, model: onnx.ModelProto) -> Network:
    data = model.SerializeToString(deterministic=True)
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.onnx").write_bytes(data)
    return Network(model=name, sha256=hashlib.sha256(data).hexdigest())


def _backbone() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["clips"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["features"]),
    ]
    shape = ["n", PLAN.frames_per_clip, PLAN.crop_pixels, PLAN.crop_pixels, 3]
    clips = helper.make_tensor_value_info("clips", TensorProto.UINT8, shape)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURE_DIM])
    constants = {"axes": np.array([1, 2, 3], np.int64), "weights": WEIGHTS}
    return _model(nodes, [clips], [features], constants)


def _cas() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["features", "kernel"], ["cas"]),
        helper.make_node("ReduceL2", ["features", "channels"], ["magnitude"], keepdims=0),
    ]
    kind = TensorProto.FLOAT
    features = helper.make_tensor_value_info("features", kind, ["b", FEATURE_DIM, "l"])
    cas = helper.make_tensor_value_info("cas", kind, ["b", 2, "l"])
    magnitude = helper.make_tensor_value_info("magnitude", kind, ["b", "l"])
    kernel = np.eye(2, FEATURE_DIM, dtype=np.float32)[:, :, None]
    constants = {"kernel": kernel, "channels": np.array([1], np.int64)}
    return _model(nodes, [features], [cas, magnitude], constants)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
