"""TV-L1 flow as nodes of an ONNX graph, to stand before the backbone that takes it.

What `tvl1.Tvl1` computes, written node by node as the backbones are (`backbones/i3d_onnx.py` says
why). Warps and iterations are loops of a fixed count: their turns are not written out. Everything
is float32, and every node is one that ONNX Runtime has for CUDA too.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from backtal.manifest import FLOW_CHANNELS, RGB_CHANNELS
from backtal_export.flow.image_nodes import (
    CHANNEL,
    COLUMN,
    ROW,
    backward_difference,
    central_gradient,
    forward_gradient,
    median,
    resized,
    summed_product,
)
from backtal_export.flow.tvl1_settings import GREY, LEAST_GRADIENT, MEDIAN_PIXELS, Tvl1Settings
from backtal_export.graph_writer import GraphWriter
from backtal_export.onnx_file import to_bytes


def tvl1_flow(
    graph: GraphWriter,
    clips: str,
    num_fields: int,
    pixels: int,
    settings: Tvl1Settings | None = None,
) -> str:
    """The flow, float32 [N, F, S, S, 2], of `clips` uint8 [N, F + 1, S, S, 3], RGB.

    num_fields: F, at least 1. pixels: S. N is free. Flow t is from frame t to frame t + 1, in
    pixels, x then y. The same arguments give the same nodes.
    """
    settings = settings or Tvl1Settings()
    sizes = settings.sizes(pixels)
    pyramid = [_grey(graph, clips, pixels)]
    for size in sizes[1:]:
        pyramid.append(resized(graph, pyramid[-1], size))
    flow = ""
    for size, level in zip(reversed(sizes), reversed(pyramid), strict=True):
        first, second = _pairs(graph, level, num_fields, size)
        if flow:
            larger = resized(graph, flow, size)
            flow = graph.node("Div", [larger, graph.number(settings.scale_step)])
        else:
            nothing = graph.node("Mul", [first, graph.number(0)])
            flow = graph.node("Concat", [nothing, nothing], axis=CHANNEL)
        flow = _Scale(graph, settings, first, second, size).flow(flow)
    flow = graph.node("Transpose", [flow], perm=[0, ROW, COLUMN, CHANNEL])
    shape = graph.integers(-1, num_fields, pixels, pixels, FLOW_CHANNELS)
    return graph.node("Reshape", [flow, shape])


def tvl1_onnx(
    num_fields: int = 16, pixels: int = 224, settings: Tvl1Settings | None = None
) -> bytes:
    """The flow alone as a model file: `clips` in and `flow` out, of the shapes of `tvl1_flow`."""
    graph = GraphWriter()
    found = tvl1_flow(graph, "clips", num_fields, pixels, settings)
    graph.node("Identity", [found], output="flow")
    value, square = helper.make_tensor_value_info, (pixels, pixels)
    clips = value("clips", TensorProto.UINT8, ["N", num_fields + 1, *square, RGB_CHANNELS])
    flow = value("flow", TensorProto.FLOAT, ["N", num_fields, *square, FLOW_CHANNELS])
    return to_bytes(helper.make_graph(graph.nodes, "tvl1", [clips], [flow], graph.initializers))


def _grey(graph: GraphWriter, clips: str, pixels: int) -> str:
    """Every frame in whole numbers, as OpenCV has them: [N (F + 1), 1, S, S]."""
    shape = graph.integers(-1, pixels, pixels, RGB_CHANNELS)
    frames = graph.node("Cast", [graph.node("Reshape", [clips, shape])], to=TensorProto.FLOAT)
    weighted = graph.node("Mul", [frames, graph.constant("grey", np.array(GREY, np.float32))])
    grey = graph.node("ReduceSum", [weighted, graph.integers(3)], keepdims=0)
    return graph.node("Unsqueeze", [graph.node("Round", [grey]), graph.integers(CHANNEL)])


def _pairs(graph: GraphWriter, level: str, num_fields: int, size: int) -> tuple[str, str]:
    """Of every field the frame that it starts from and the next one, both [N F, 1, S, S]."""
    by_clip = graph.node("Reshape", [level, graph.integers(-1, num_fields + 1, size, size)])
    in_a_row = graph.integers(-1, 1, size, size)
    first, second = (
        graph.node("Reshape", [graph.slice(by_clip, 1, start, start + num_fields), in_a_row])
        for start in (0, 1)
    )
    return first, second


class _Scale:
    """One scale of M fields: images [M, 1, S, S], flow and its projections [M, 2, S, S]."""

    def __init__(
        self, graph: GraphWriter, settings: Tvl1Settings, first: str, second: str, size: int
    ) -> None:
        self._graph = graph
        self._settings = settings
        self._size = size
        self._first = first
        self._moving = graph.node(
            "Concat", [second, *central_gradient(graph, second)], axis=CHANNEL
        )
        self._grid = _pixel_grid(graph, size)

    def flow(self, flow: str) -> str:
        """The flow, corrected."""
        # Two projections for each component of the flow, one in x and one in y.
        dual = self._graph.node("Mul", [flow, self._graph.number(0)])
        return self._graph.loop(self._settings.num_warps, [flow, dual, dual], self._warp)[0]

    def _warp(self, graph: GraphWriter, before: list[str]) -> list[str]:
        flow, *duals = before
        warped = self._warped(graph, flow)
        gradient = graph.slice(warped, CHANNEL, 1, 1 + FLOW_CHANNELS)
        least = graph.number(LEAST_GRADIENT)
        squared = graph.node("Max", [summed_product(graph, gradient, gradient), least])
        moved = summed_product(graph, gradient, flow)
        unmoved = graph.node("Sub", [graph.slice(warped, CHANNEL, 0, 1), moved])
        rest = graph.node("Sub", [unmoved, self._first])
        brightness = (gradient, graph.node("Neg", [squared]), rest)
        for _ in range(self._settings.num_outer):
            flow = median(graph, flow, MEDIAN_PIXELS, self._size)
            flow, *duals = graph.loop(
                self._settings.num_inner,
                [flow, *duals],
                lambda inner, values: self._iteration(inner, values, *brightness),
            )
        return [flow, *duals]

    def _iteration(
        self, graph: GraphWriter, before: list[str], gradient: str, steepness: str, rest: str
    ) -> list[str]:
        """As `tvl1.iterations` has it, and its names."""
        bound, step = self._settings.bound, graph.number(self._settings.step)
        flow, dual_x, dual_y = before
        residual = graph.node("Add", [rest, summed_product(graph, gradient, flow)])
        ratio = graph.node("Div", [residual, steepness])
        within = graph.node("Clip", [ratio, graph.number(-bound), graph.number(bound)])
        auxiliary = graph.node("Add", [flow, graph.node("Mul", [within, gradient])])
        divergence = graph.node(
            "Add",
            [
                backward_difference(graph, dual_x, COLUMN),
                backward_difference(graph, dual_y, ROW),
            ],
        )
        spread = graph.node("Mul", [divergence, graph.number(self._settings.tightness)])
        flow = graph.node("Add", [auxiliary, spread])
        along = [forward_gradient(graph, flow, axis) for axis in (COLUMN, ROW)]
        squares = [graph.node("Mul", [part, part]) for part in along]
        length = graph.node("Sqrt", [graph.node("Add", squares)])
        shrink = graph.node("Add", [graph.node("Mul", [length, step]), graph.number(1)])
        duals = []
        for dual, part in zip((dual_x, dual_y), along, strict=True):
            raised = graph.node("Add", [dual, graph.node("Mul", [part, step])])
            duals.append(graph.node("Div", [raised, shrink]))
        return [flow, *duals]

    def _warped(self, graph: GraphWriter, flow: str) -> str:
        """The second frame where the flow points to; beyond its border it is 0, as in OpenCV."""
        places = graph.node("Add", [flow, self._grid])
        places = graph.node("Transpose", [places], perm=[0, ROW, COLUMN, CHANNEL])
        # From numbers of pixels to the sampler's -1 to 1.
        places = graph.node("Mul", [places, graph.number(2)])
        places = graph.node("Add", [places, graph.number(1)])
        places = graph.node("Div", [places, graph.number(self._size)])
        places = graph.node("Sub", [places, graph.number(1)])
        return graph.node(
            "GridSample",
            [self._moving, places],
            mode="bicubic",
            padding_mode="zeros",
            align_corners=0,
        )


def _pixel_grid(graph: GraphWriter, size: int) -> str:
    """Each pixel's own (x, y), [1, 2, S, S]."""
    line = np.arange(size, dtype=np.float32)
    lines = {"columns": line.reshape(1, 1, 1, size), "rows": line.reshape(1, 1, size, 1)}
    shape = graph.integers(1, 1, size, size)
    expanded = [
        graph.node("Expand", [graph.constant(f"{name}_{size}", values), shape])
        for name, values in lines.items()
    ]
    return graph.node("Concat", expanded, axis=CHANNEL)
