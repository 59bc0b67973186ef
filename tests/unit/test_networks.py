"""One network file, by each runtime: the same answers, the same refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backtal import networks, precision
from backtal.errors import InvalidArgument, InvalidFile, MissingDependency, NotFound
from backtal.networks import Backend, OpenNetwork, open_network
from backtal.precision import computed_in, processor_has_bfloat16

BACKENDS: tuple[Backend, ...] = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [n, 3] float32 to double [n, 3] and product [n, 2]."""
    weights = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["double"]),
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", kind, ["n", 3])],
        [
            helper.make_tensor_value_info("double", kind, ["n", 3]),
            helper.make_tensor_value_info("product", kind, ["n", 2]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path_factory.mktemp("network") / "model.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture(params=BACKENDS)
def network(request: pytest.FixtureRequest, path: Path) -> OpenNetwork:
    return open_network(path, request.param, "float32", 1)


def test_outputs_come_in_the_order_they_are_asked_for(network: OpenNetwork, path: Path) -> None:
    assert network.input_names == ("x",)
    assert network.output_names == ("double", "product")
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    product, double = network.run(["product", "double"], {"x": x})
    np.testing.assert_array_equal(double, x + x)
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    np.testing.assert_allclose(product, x @ weights, rtol=1e-5, atol=1e-6)


def test_an_answer_is_not_written_over_by_the_next(network: OpenNetwork) -> None:
    (first,) = network.run(["double"], {"x": np.ones((2, 3), np.float32)})
    network.run(["double"], {"x": np.zeros((2, 3), np.float32)})
    assert (first == 2).all()


def test_what_is_not_contiguous_is_read_right(network: OpenNetwork) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T
    (double,) = network.run(["double"], {"x": x})
    np.testing.assert_array_equal(double, x + x)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((2, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.zeros((2, 3), np.float64)},
        {"y": np.zeros((2, 3), np.float32)},
        {},
    ],
    ids=["size", "rank", "type", "name", "none"],
)
def test_what_does_not_fit_is_refused_by_name(network: OpenNetwork, inputs: dict) -> None:
    with pytest.raises(InvalidArgument, match="x"):
        network.run(["double"], inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_network_and_no_file_are_told(tmp_path: Path, backend: Backend) -> None:
    with pytest.raises(NotFound, match=r"no such file: .*lost\.onnx"):
        open_network(tmp_path / "lost.onnx", backend, "float32")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InvalidFile, match=r"text\.onnx is no network"):
        open_network(tmp_path / "text.onnx", backend, "float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_runtime_names_the_extra(
    path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(MissingDependency, match=rf"{backend} is not installed.*backtal\[local\]"):
        open_network(path, backend, "float32")


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("amx_bf16 amx_tile", True),
        ("fpu avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_the_processor_is_asked(tmp_path: Path, flags: str, has: bool) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: any amx_bf16\nflags\t\t: {flags}\n")
    assert processor_has_bfloat16(info) is has


def test_a_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert processor_has_bfloat16(tmp_path / "none") is False


def test_bfloat16_is_float32_where_the_processor_has_none(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    assert computed_in("bfloat16") == "float32"
    assert computed_in("float32") == "float32"
    x = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    exact = open_network(path, "openvino", "float32", 1).run(["product"], {"x": x})[0]
    assert not caplog.records
    rounded = open_network(path, "openvino", "bfloat16", 1).run(["product"], {"x": x})[0]
    np.testing.assert_array_equal(rounded, exact)
    assert "runs in float32: this processor has no bfloat16" in caplog.text


def test_threads_are_the_cores_unless_told() -> None:
    assert networks.session_options().intra_op_num_threads == networks.num_cores()
    assert networks.session_options(3).intra_op_num_threads == 3
