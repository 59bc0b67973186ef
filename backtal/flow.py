"""Optical flow between frames, by OpenCV: TV-L1 as published features have it, DIS as a fast one.

A flow backbone that finds flow itself (`ClipPlan.takes_frames`) has no need of this.

The flow is in pixels from one tick of the clip plan to the next, as it is found: what a network
cuts off and scales is in its graph. Published features computed it before they cropped the
frames; here it is of the cropped frames, whose outer pixels may move to where nothing was seen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidArgument, MissingDependency
from backtal.features import FloatArray
from backtal.manifest import FLOW_CHANNELS, FLOW_IN_NETWORK, ClipPlan, FlowMethod


def flow_fields(frames: NDArray[np.uint8], method: FlowMethod) -> FloatArray:
    """Frames uint8 [M + 1, H, W, 3], RGB, in their order -> flow float32 [M, H, W, 2], x then y.

    Raises MissingDependency where OpenCV is not installed, or was built without TV-L1.
    """
    cv2 = _opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    # Its own for each call: it keeps its buffers, and calls come from several threads.
    algorithm = _algorithm(cv2, method)
    flow = np.empty((len(grey) - 1, *frames.shape[1:3], FLOW_CHANNELS), np.float32)
    for index, (before, after) in enumerate(pairwise(grey)):
        flow[index] = algorithm.calc(before, after, None)
    return flow


def plan_flow_fields(frames: NDArray[np.uint8], plan: ClipPlan) -> FloatArray:
    """`flow_fields` by the clip plan's method. Raises InvalidArgument where OpenCV has none."""
    if plan.flow is None:
        raise InvalidArgument("the clip plan does not say how flow is computed: clip_plan.flow")
    if plan.flow == FLOW_IN_NETWORK:
        raise InvalidArgument(f"clip_plan.flow is {plan.flow}: the backbone finds the flow")
    return flow_fields(frames, plan.flow)


def joined(samples: NDArray[np.uint8], plan: ClipPlan) -> NDArray[np.uint8] | None:
    """The frames of overlapping samples [n, F + 1, H, W, 3] in a row, each once.

    Sample i starts at frame ``i * stride_frames``. None where samples have no frame in common.
    """
    stride = plan.stride_frames
    if stride > plan.frames_per_clip:
        return None
    later = samples[1:, plan.frames_taken - stride :]
    row: NDArray[np.uint8] = np.concatenate([samples[0], later.reshape(-1, *samples.shape[2:])])
    return row


def pieces(row: NDArray[np.uint8], num_fields: int) -> list[NDArray[np.uint8]]:
    """A row of frames cut so that each piece has at most `num_fields` fields of flow.

    Neighbouring pieces have one frame in common, so that together they have the row's fields.
    """
    return [row[i : i + num_fields + 1] for i in range(0, len(row) - 1, num_fields)]


def _algorithm(cv2: Any, method: FlowMethod) -> Any:
    if method == "dis":
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if not hasattr(cv2, "optflow"):
        raise MissingDependency(
            "this OpenCV has no TV-L1 flow: pip uninstall it, then pip install 'backtal[flow]'"
        )
    return cv2.optflow.DualTVL1OpticalFlow_create()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependency(
            "optical flow needs OpenCV, which is not installed: pip install 'backtal[flow]'"
        ) from None
    return cv2
