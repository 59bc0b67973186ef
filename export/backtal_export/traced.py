"""A torch module as an ONNX file, by torch's TorchScript exporter, without its notes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from backtal_export.onnx_file import OPSET, to_bytes

Axes = Mapping[str, Mapping[int, str]]


def traced_onnx(
    module: nn.Module,
    example: Tensor,
    *,
    inputs: Axes,
    outputs: Axes,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The model file of `module`, which takes one tensor like `example`.

    inputs, outputs: their names, each with its free axes by name. metadata: kept in the file. The
    same weights give the same bytes under one version of torch.
    """
    with (
        tempfile.TemporaryDirectory(prefix="backtal-export-") as folder,
        torch.inference_mode(),
        warnings.catch_warnings(),
    ):
        path = Path(folder) / "model.onnx"
        # The TorchScript exporter says that it is old. The new one gives the same answers after 20
        # to 40 times the processor time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_axes={name: dict(axes) for name, axes in {**inputs, **outputs}.items()},
            dynamo=False,
        )
        traced = onnx.load(path)
    return to_bytes(_anonymous(traced.graph), metadata)


def _anonymous(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph without the exporter's notes: they name files and lines of this machine."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _anonymous(attribute.g)
    return graph
