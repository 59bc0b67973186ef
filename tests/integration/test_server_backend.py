"""Our `onnxruntime` backend takes configurations as the native one does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.conftest import outputs, tensor

pytestmark = pytest.mark.slow

WIDTH = 5

_CONFIGURATION = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [
  {{ name: "double" data_type: TYPE_FP32 dims: [ {dims} ] }},
  {{ name: "sum" data_type: TYPE_FP32 dims: [ {sums} ] }}
]
{more}
"""
_BATCHED = """
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 300000 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
model_warmup [ {
  name: "zeros" batch_size: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 5 ] zero_data: true } }
} ]
"""


@pytest.fixture(scope="module")
def address(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from backtal_serving.embedded import EmbeddedServer

    repository = tmp_path_factory.mktemp("backend")
    alone = {"batch": 0, "dims": "-1, -1", "sums": "-1"}
    together = {"batch": 8, "dims": "-1", "sums": "", "more": _BATCHED}
    _write(repository, "alone", "model.onnx", **alone, more="")
    renamed = 'default_model_filename: "network.onnx"'
    _write(repository, "renamed", "network.onnx", **alone, more=renamed)
    _write(repository, "together", "model.onnx", **{**together, "sums": "1"})
    with EmbeddedServer(repository) as server:
        yield server.grpc_address
    assert server.exit_code == 0


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(address) as connected:
        yield connected


@pytest.mark.parametrize("model", ["alone", "renamed", "together"])
def test_the_answers_are_the_networks(client: Any, model: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    result = client.infer(model, [tensor("x", x)])
    np.testing.assert_array_equal(result.as_numpy("double"), x + x)
    np.testing.assert_allclose(result.as_numpy("sum").ravel(), x.sum(1), rtol=1e-5)


def test_one_output_can_be_asked_for(client: Any) -> None:
    x = np.ones((2, WIDTH), np.float32)
    result = client.infer("alone", [tensor("x", x)], outputs=outputs("sum"))
    assert [output.name for output in result.get_response().outputs] == ["sum"]


def test_requests_that_wait_together_run_together_and_get_their_own(client: Any) -> None:
    random = np.random.default_rng(1)
    batches = [random.normal(size=(1 + index % 2, WIDTH)).astype(np.float32) for index in range(5)]
    before = _statistics(client)
    with ThreadPoolExecutor(max_workers=len(batches)) as pool:
        results = list(pool.map(lambda x: client.infer("together", [tensor("x", x)]), batches))
    for x, result in zip(batches, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("double"), x + x)
        assert result.as_numpy("sum").shape == (len(x), 1)
    after = _statistics(client)
    requests, runs = after[0] - before[0], after[1] - before[1]
    assert requests == sum(map(len, batches))
    assert runs < len(batches)


def test_requests_of_different_shapes_that_wait_together_are_kept_apart(client: Any) -> None:
    shapes = [(1, 3), (1, 4), (1, 3)]
    with ThreadPoolExecutor(max_workers=len(shapes)) as pool:
        futures = [
            pool.submit(client.infer, "together", [tensor("x", np.ones(shape, np.float32))])
            for shape in shapes
        ]
    for shape, future in zip(shapes, futures, strict=True):
        assert future.result().as_numpy("double").shape == shape
        assert future.result().as_numpy("sum").ravel().tolist() == [float(shape[1])]


def _statistics(client: Any) -> tuple[int, int]:
    """How many items and how many runs of the batching model there were."""
    statistics = client.get_inference_statistics("together").model_stats[0]
    return statistics.inference_count, statistics.execution_count


def _write(repository: Path, name: str, file_name: str, **configuration: Any) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["double"]),
            helper.make_node(
                "ReduceSum", ["x", "axes"], ["sum"], keepdims=int(configuration["batch"] > 0)
            ),
        ],
        name,
        [helper.make_tensor_value_info("x", kind, ["n", "width"])],
        [
            helper.make_tensor_value_info("double", kind, ["n", "width"]),
            helper.make_tensor_value_info("sum", kind, None),
        ],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    version = repository / name / "1"
    version.mkdir(parents=True)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), version / file_name)
    text = _CONFIGURATION.format(name=name, **configuration)
    (repository / name / "config.pbtxt").write_text(text)
