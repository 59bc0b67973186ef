"""ONNX graphs written node by node: their bytes depend on nothing but what is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from backtal.manifest import FLOW_CHANNELS, ClipPlan, StreamName
from backtal_export.onnx_file import to_bytes

RGB_CHANNELS = 3


class GraphWriter:
    """The nodes and constants so far; every method returns the name of the value it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(
        self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        """A node of one output, which is named after its kind unless told."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """A constant of the graph."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def backbone_file(
        self, name: str, *, stream: StreamName, feature_dim: int, plan: ClipPlan | None = None
    ) -> bytes:
        """The model file of a backbone: its nodes read `clips` and have written `features`.

        clips: of rgb uint8 [N, F, H, W, 3]; of flow float32 [N, F, H, W, 2], pixels a tick.
        features: float32 [N, feature_dim]. F, H and W are the clip plan's, N is free.
        """
        plan = plan or ClipPlan()
        size = [plan.frames_per_clip, plan.crop_pixels, plan.crop_pixels]
        kind, channels = {
            "rgb": (TensorProto.UINT8, RGB_CHANNELS),
            "flow": (TensorProto.FLOAT, FLOW_CHANNELS),
        }[stream]
        clips = helper.make_tensor_value_info("clips", kind, ["N", *size, channels])
        features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", feature_dim])
        return to_bytes(helper.make_graph(self.nodes, name, [clips], [features], self.initializers))
