"""Model files that an ONNX Runtime of 2024 loads, named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from backtal.errors import InvalidFile
from backtal.manifest import TensorShape

# Triton 24.10 carries ONNX Runtime 1.19: IR up to 10, opset up to 21.
OPSET = 18
IR_VERSION = 8


def to_bytes(graph: onnx.GraphProto, metadata: Mapping[str, str] | None = None) -> bytes:
    """The model file of `graph`: the same graph and metadata give the same bytes.

    Metadata are part of the bytes, and so of the hash. A backbone's hash is named by checkpoints,
    so a backbone has none beyond its graph's name and its producer.
    """
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="backtal",
    )
    helper.set_model_props(model, dict(sorted((metadata or {}).items())))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def sha256_of(data: bytes) -> str:
    """The hash that names a model file."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class FileFacts:
    """What a model file says of itself: the version of its operators, its inputs and outputs."""

    opset: int
    inputs: tuple[TensorShape, ...]
    outputs: tuple[TensorShape, ...]


def facts_of(model_file: bytes) -> FileFacts:
    """Read a model file, by ONNX's own checker with full shape inference.

    Raises InvalidFile with what the checker says.
    """
    try:
        model = onnx.load_from_string(model_file)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise InvalidFile(f"this is no valid ONNX file: {error}") from None
    return FileFacts(
        opset=next(int(entry.version) for entry in model.opset_import if entry.domain == ""),
        inputs=tuple(map(_shape, model.graph.input)),
        outputs=tuple(map(_shape, model.graph.output)),
    )


def _shape(value: onnx.ValueInfoProto) -> TensorShape:
    tensor = value.type.tensor_type
    return TensorShape(
        name=value.name,
        dtype=str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        shape=tuple(dim.dim_param or int(dim.dim_value) for dim in tensor.shape.dim),
    )
