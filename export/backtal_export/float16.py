"""A network in float16, as a file of its own, and what a GPU makes of it, computed on a CPU.

A GPU multiplies values of float16, adds in float32 and rounds what a node gives to float16. ONNX
Runtime's CPU provider has no such kernels: it computes a float16 file in float32 and rounds
nothing between the nodes, which would prove nothing. `rounded_as_float16` writes the rounding out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from backtal.errors import InvalidFile


def to_float16(model_file: bytes) -> bytes:
    """The network with weights and arithmetic in float16, inputs and outputs as they were.

    The same file gives the same bytes, under one version of ONNX Runtime.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(
        convert_float_to_float16(
            onnx.load_from_string(model_file), keep_io_types=True, disable_shape_infer=True
        )
    )
    # Its casts of inputs come last, where ONNX's checker wants them before who reads them.
    model.topological_sort(is_deterministic=True)
    data: bytes = model.model.SerializeToString(deterministic=True)
    return data


def rounded_as_float16(float16_file: bytes) -> bytes:
    """A float32 network that answers as a GPU does with this file, but for the order of sums.

    Weights are those of the file, and every value that it holds in float16 is rounded to that, by
    a cast there and back. Raises InvalidFile where the type of a value cannot be known, and for
    loops and branches, whose values are not seen.
    """
    model = onnx.load_from_string(float16_file)
    for node in model.graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise InvalidFile(f"{node.op_type} {node.name} has nodes of its own: not rounded")
    in_float16 = _values_in_float16(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(_in_float32(tensor))
    nodes = [made for node in model.graph.node for made in _rounded(node, in_float16)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _values_in_float16(model: onnx.ModelProto) -> frozenset[str]:
    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    except shape_inference.InferenceError as error:
        raise InvalidFile(f"the types of this float16 network cannot be known: {error}") from None
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    unknown = {name for node in graph.node for name in node.output if not kinds.get(name)}
    if unknown:
        raise InvalidFile(f"the types of {', '.join(sorted(unknown))} cannot be known")
    return frozenset(name for name, kind in kinds.items() if kind == TensorProto.FLOAT16)


def _rounded(node: onnx.NodeProto, in_float16: frozenset[str]) -> Iterator[onnx.NodeProto]:
    """The node in float32, and after it the rounding of what it gives."""
    for attribute in node.attribute:
        if attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(_in_float32(attribute.t))
        if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
    exact = {name: f"{name}_exact" for name in node.output if name in in_float16}
    node.output[:] = [exact.get(name, name) for name in node.output]
    yield node
    for name in exact:
        half, back = f"{name}_in_float16", f"{name}_back"
        yield helper.make_node("Cast", [exact[name]], [half], name=half, to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [half], [name], name=back, to=TensorProto.FLOAT)


def _in_float32(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
