"""Model files that an ONNX Runtime of 2024 loads, named by their content."""

from __future__ import annotations

import hashlib

import onnx
from onnx import helper

# Triton 24.10 carries ONNX Runtime 1.19: IR up to 10, opset up to 21.
OPSET = 18
IR_VERSION = 8


def to_bytes(graph: onnx.GraphProto) -> bytes:
    """The model file of `graph`: the same graph gives the same bytes."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="backtal",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def sha256_of(data: bytes) -> str:
    """The hash that names a model file."""
    return hashlib.sha256(data).hexdigest()
