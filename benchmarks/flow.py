"""Optical flow by method: seconds a field, distance to OpenCV's TV-L1, and what I3D makes of it.

    python benchmarks/flow.py [--quick] [--fields 16] [--json FILE] [--videos FOLDER]

On one clip of 17 frames of each of a few real videos, all methods in one run with the same
threads. TV-L1 takes seconds a field: with fewer --fields, these repeat to fill I3D's clip.
End-point error: the length of the difference to OpenCV's TV-L1, in pixels: the mean over a video's
pixels, of which the table has the mean and the worst over the videos, and the largest of any pixel.
Feature cosine: between the I3D flow features of the two, less those of a still clip, which with
seeded weights are nearly all of them (plain, every method is above 0.9999). **Its weights are
seeded, no trained ones**, unless --weights names a flow_imagenet.pt: the figure then tests the
chain and says little about a trained network.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from backtal.clips import ClipAssembler
from backtal.features import FloatArray
from backtal.flow import flow_fields
from backtal.manifest import ClipPlan
from backtal.runtime import PROVIDERS, num_cores, session_options
from backtal.video import VideoLimits, open_video
from backtal_export.backbones.i3d_layers import Weights, weight_shapes
from backtal_export.backbones.i3d_onnx import i3d_flow_onnx
from backtal_export.backbones.weights import i3d_weights_of
from backtal_export.flow.tvl1_onnx import tvl1_onnx
from backtal_export.gates import cosines

ROOT = Path(__file__).resolve().parents[1]
VIDEOS = (
    "anet_v_GGSY1Qvo990.mp4",
    "mmskeleton_skateboarding.mp4",
    "mmaction2_basketball.mp4",
    "askanything_yoga.mp4",
    "decord_flipping_a_pancake.mkv",
    "felix_exercise.avi",
)
CLIP = 2
REFERENCE = "OpenCV TV-L1"

Method = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass
class Figures:
    """Of one method, a value for each video; end-point errors are of its pixels."""

    seconds_per_field: list[float] = field(default_factory=list)
    mean_error: list[float] = field(default_factory=list)
    largest_error: list[float] = field(default_factory=list)
    feature_cosine: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one video")
    parser.add_argument("--fields", type=int, choices=range(1, 17), default=16, metavar="1-16")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--videos", type=Path, default=ROOT.parent / "shared/media/clips")
    parser.add_argument("--weights", type=Path, help="flow_imagenet.pt")
    arguments = parser.parse_args()
    names = VIDEOS[:1] if arguments.quick else VIDEOS
    clips = [third_clip(arguments.videos / name)[: arguments.fields + 1] for name in names]
    weights = (
        seeded_flow_weights() if arguments.weights is None else i3d_weights_of(arguments.weights, 2)
    )
    figures, sizes = measure(clips, weights)
    show(figures, sizes, arguments.fields, seeded=arguments.weights is None)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(flat(figures, sizes), indent=2) + "\n")
    return 0


def third_clip(path: Path) -> NDArray[np.uint8]:
    """17 frames [17, 224, 224, 3] of a video, as the pipeline would take them."""
    plan = ClipPlan(flow="tvl1")
    video = open_video(path, VideoLimits())
    assembler, clips = ClipAssembler(plan), []
    try:
        for window in video.windows(plan, allow_partial=True):
            clips += list(assembler.add(window))
            if len(clips) > CLIP:
                break
    finally:
        video.close()
    return clips[CLIP]


def methods(num_fields: int) -> dict[str, Method]:
    session = onnxruntime.InferenceSession(
        tvl1_onnx(num_fields, 224), session_options(), providers=list(PROVIDERS)
    )
    return {
        REFERENCE: lambda frames: flow_fields(frames, "tvl1"),
        "OpenCV DIS": lambda frames: flow_fields(frames, "dis"),
        "TV-L1 network": lambda frames: session.run(["flow"], {"clips": frames[None]})[0][0],
    }


def measure(
    clips: list[NDArray[np.uint8]], weights: Weights
) -> tuple[dict[str, Figures], list[float]]:
    """Each method's figures, and the mean length of the reference's flow by clip."""
    i3d = onnxruntime.InferenceSession(
        i3d_flow_onnx(weights), session_options(), providers=list(PROVIDERS)
    )
    known = methods(len(clips[0]) - 1)
    figures = {name: Figures() for name in known}
    sizes: list[float] = []
    still = features_of(i3d, np.zeros((1, *clips[0].shape[1:3], 2), np.float32))
    for frames in clips:
        reference: NDArray[np.float32] | None = None
        wanted: NDArray[np.float32] | None = None
        for name, method in known.items():
            started = time.perf_counter()
            flow = method(frames)
            seconds = (time.perf_counter() - started) / len(flow)
            added = features_of(i3d, flow) - still
            if reference is None or wanted is None:
                reference, wanted = flow, added
                sizes.append(float(np.linalg.norm(flow, axis=-1).mean()))
            errors = np.linalg.norm(flow - reference, axis=-1)
            figures[name].seconds_per_field.append(seconds)
            figures[name].mean_error.append(float(errors.mean()))
            figures[name].largest_error.append(float(errors.max()))
            figures[name].feature_cosine.append(float(cosines(added, wanted)[0]))
    return figures, sizes


def features_of(i3d: onnxruntime.InferenceSession, flow: NDArray[np.float32]) -> FloatArray:
    """Features [1, 1024] of one clip, whose fields repeat to fill it."""
    clip = np.resize(flow, (1, ClipPlan().frames_per_clip, *flow.shape[1:]))
    (features,) = i3d.run(["features"], {"clips": clip})
    return np.asarray(features)


def seeded_flow_weights() -> Weights:
    """Random weights whose activations neither vanish nor grow from layer to layer."""
    random = np.random.default_rng(5)
    weights: Weights = {}
    for name, shape in weight_shapes(2).items():
        if name.endswith("weight"):
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = random.uniform(-0.2, 0.2, shape)
        weights[name] = values.astype(np.float32)
    return weights


def show(figures: dict[str, Figures], sizes: list[float], num_fields: int, *, seeded: bool) -> None:
    load = os.getloadavg()[0]
    print(f"{num_cores()} cores, load {load:.1f}; {len(sizes)} clips of {num_fields} fields")
    print(f"mean flow of each clip, pixels: {', '.join(f'{size:.2f}' for size in sizes)}")
    print(f"I3D flow weights: {'seeded, not trained' if seeded else 'as given'}")
    print("| method | seconds a field | mean error | worst video's | largest | feature cosine |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, values in figures.items():
        print(
            f"| {name} | {statistics.median(values.seconds_per_field):.3f} "
            f"| {statistics.mean(values.mean_error):.3f} | {max(values.mean_error):.3f} "
            f"| {max(values.largest_error):.1f} | {statistics.mean(values.feature_cosine):.4f} "
            f"(lowest {min(values.feature_cosine):.4f}) |"
        )


def flat(figures: dict[str, Figures], sizes: list[float]) -> dict[str, float]:
    result = {"mean_flow_pixels": statistics.mean(sizes)}
    for name, values in figures.items():
        key = name.lower().replace(" ", "_").replace("-", "")
        result[f"{key}.seconds_per_field"] = statistics.median(values.seconds_per_field)
        result[f"{key}.mean_error"] = statistics.mean(values.mean_error)
        result[f"{key}.worst_video_error"] = max(values.mean_error)
        result[f"{key}.largest_error"] = max(values.largest_error)
        result[f"{key}.feature_cosine"] = statistics.mean(values.feature_cosine)
        result[f"{key}.lowest_feature_cosine"] = min(values.feature_cosine)
    return result


if __name__ == "__main__":
    sys.exit(main())
