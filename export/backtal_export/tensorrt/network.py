"""An ONNX file in the form that TensorRT reads, and whether it knows every operator of it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

from backtal.errors import InvalidFile

# Of onnx-tensorrt's docs/operators.md (TensorRT 8.4; GridSample came with 8.6), those that graphs
# of this project may hold.
KNOWN_OPERATORS = frozenset(
    """
    Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather Gemm GlobalAveragePool Greater
    GridSample Identity If LeakyRelu Less Log Loop MatMul Max MaxPool Min Mul Neg Not Or Pad Pow
    QuantizeLinear Range ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize
    Round Shape Sigmoid Sign Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose
    Unsqueeze Where
    """.split()  # noqa: SIM905
)
OLDEST_OPSET, NEWEST_OPSET = 9, 21


def for_tensorrt(model_file: bytes) -> bytes:
    """The same network with its uint8 input cast first: TensorRT does nothing else with uint8.

    What moves pixels about then moves float32, of the same values. Raises InvalidFile for a file
    that TensorRT's parser would refuse, by operator, opset or type.
    """
    model = onnx.load_from_string(model_file)
    for value in list(model.graph.input):
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            _cast_first(model.graph, value.name)
            # Types that were noted of values between, which are no longer uint8.
            del model.graph.value_info[:]
    check_known(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def check_known(model: onnx.ModelProto) -> None:
    """Raise InvalidFile, naming it, for what TensorRT's parser does not read."""
    for entry in model.opset_import:
        if entry.domain or not OLDEST_OPSET <= entry.version <= NEWEST_OPSET:
            raise InvalidFile(
                f"the network is of opset {entry.domain or 'ai.onnx'} {entry.version}, TensorRT "
                f"reads ai.onnx {OLDEST_OPSET} to {NEWEST_OPSET}"
            )
    unknown = sorted({node.op_type for node in _nodes(model.graph)} - KNOWN_OPERATORS)
    if unknown:
        raise InvalidFile(f"TensorRT does not read the operators {', '.join(unknown)}")
    pixels = {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    for node in model.graph.node:
        if pixels & set(node.input) and node.op_type != "Cast":
            raise InvalidFile(f"{node.name or node.op_type} takes uint8, TensorRT only casts it")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of its loops and branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _cast_first(graph: onnx.GraphProto, name: str) -> None:
    cast = f"{name}_float"
    for node in graph.node:
        for index, taken in enumerate(node.input):
            if taken == name:
                node.input[index] = cast
    node = helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT)
    graph.node.insert(0, node)
