"""The scaler of PyAV frames: a filter graph, whose pixels equal decord's to the bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from backtal.manifest import ClipPlan
from backtal.video.limits import VideoLimits
from backtal.video.scaling import check_aspect, crop_middle, quarter_turns, upright_size

TURNS: tuple[tuple[tuple[str, str | None], ...], ...] = (
    (),
    (("transpose", "cclock"),),
    (("vflip", None), ("hflip", None)),
    (("transpose", "clock"),),
)


class Scaler:
    """Frames to the clip plan's square. A graph serves until the frames change their shape."""

    def __init__(
        self, name: str, plan: ClipPlan, limits: VideoLimits, sample_aspect_ratio: Fraction
    ) -> None:
        self._name = name
        self._plan = plan
        self._limits = limits
        self._aspect = sample_aspect_ratio
        self._key: tuple[object, ...] = ()
        self._graph = Graph()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The clip plan's square of `frame`: uint8 [crop, crop, 3]."""
        key = (
            *(frame.width, frame.height, frame.format.name),
            *(frame.colorspace, frame.color_range, frame.rotation),
        )
        if key != self._key:
            self._graph, self._key = self._new_graph(frame), key
        self._graph.push(frame)
        scaled = self._graph.vpull().to_ndarray().astype(np.uint8, copy=False)
        return crop_middle(scaled, self._plan)

    def _new_graph(self, frame: VideoFrame) -> Graph:
        quarters = quarter_turns(frame.rotation)
        size = upright_size(
            frame.width, frame.height, self._aspect, quarters, self._plan.short_side_pixels
        )
        check_aspect(self._name, size, self._limits.max_aspect_ratio)
        graph = Graph()
        nodes = (
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            # Turned first, as decord does: the chroma samples lie differently afterwards.
            *(graph.add(name, argument) for name, argument in TURNS[quarters]),
            graph.add("scale", f"{size[0]}:{size[1]}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        )
        graph.link_nodes(*nodes).configure()
        return graph
