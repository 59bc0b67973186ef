"""Seconds a clip of I3D RGB, by runtime and precision.

    python benchmarks/backbone.py [--quick] [--json FILE] [--videos FOLDER]

All run the same four clips at once, as the pipeline sends them, with as many threads as there are
cores, in turns; the shortest time counts. The default is what `backtal export` writes on this
machine. Share of the matrix rate: 2 x the multiply-adds of the convolutions a second, over the
best float32 square product with the same threads in the same run. bfloat16's products have a rate
of their own, so its share may be above 1.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import matrix_rate, options, shortest, show, write
from numpy.typing import NDArray

from backtal.manifest import ClipPlan
from backtal.networks import num_cores, open_network
from backtal.precision import processor_has_bfloat16
from backtal.video import VideoLimits, open_video
from backtal_export.backbones.i3d import I3D
from backtal_export.backbones.i3d_layers import Conv, MaxPool, i3d_layers, output_sizes
from backtal_export.backbones.i3d_onnx import i3d_rgb_onnx
from backtal_export.backbones.weights import i3d_rgb_weights
from backtal_export.gates import cosines, seeded_clips
from backtal_export.runtimes import Runtime, choose_runtime

CLIPS = 4
PLAN = ClipPlan()
REFERENCE = "ONNX Runtime, float32"
EAGER = "PyTorch eager, float32"


def operations_per_clip() -> float:
    """2 x the multiply-adds of every convolution, for one clip."""
    sizes = (PLAN.frames_per_clip, PLAN.crop_pixels, PLAN.crop_pixels)
    total = 0
    for layer in i3d_layers(3):
        if isinstance(layer, MaxPool):
            sizes = output_sizes(sizes, layer.stride)
            continue
        if isinstance(layer, Conv):
            sizes = output_sizes(sizes, layer.stride)
            convolutions = [layer]
        else:
            # Within a block every convolution has stride 1.
            parts = [part for branch in layer.branches for part in branch]
            convolutions = [part for part in parts if isinstance(part, Conv)]
        for conv in convolutions:
            weights = conv.in_channels * conv.out_channels * math.prod(conv.kernel)
            total += 2 * weights * math.prod(sizes)
    return float(total)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--videos", type=Path, help="clips of these videos, else drawn ones")
    arguments = parser.parse_args()
    torch.set_num_threads(num_cores())
    clips = (
        seeded_clips(PLAN.frames_per_clip, PLAN.crop_pixels)
        if arguments.videos is None
        else first_clips(arguments.videos)[:CLIPS]
    )
    rate = matrix_rate()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        weights = i3d_rgb_weights(lambda _: None)
        path.write_bytes(i3d_rgb_onnx(weights))
        work = _variants(path, I3D.from_weights(weights), clips)
        features = {name: call() for name, call in work.items()}
        seconds = shortest(work, 2 if arguments.quick else 8)
    rate = max(rate, matrix_rate())
    default = _name(choose_runtime("embedded", None))
    cosine = {
        name: float(cosines(features[REFERENCE], found).min()) for name, found in features.items()
    }
    share = {name: operations_per_clip() * CLIPS / taken / rate for name, taken in seconds.items()}
    title = (
        f"I3D RGB, {operations_per_clip() / 1e9:.1f} GFLOP a clip, {num_cores()} threads, "
        f"matrix rate {rate / 1e9:.0f} GFLOP/s"
    )
    rows = [
        (
            f"{name}{' (default)' if name == default else ''}",
            f"{taken / CLIPS:.3f}",
            f"{seconds[REFERENCE] / taken:.2f}",
            f"{share[name]:.2f}",
            f"{cosine[name]:.6f}",
        )
        for name, taken in seconds.items()
    ]
    show(title, ("", "s a clip", "x ONNX Runtime", "share of rate", "lowest cosine"), rows)
    exact = "OpenVINO, float32"
    write(
        arguments.json,
        {
            "default": default,
            "default_over_ort": seconds[REFERENCE] / seconds[default],
            "default_over_eager": seconds[EAGER] / seconds[default],
            "feature_cosine": cosine[default],
            "share_of_matrix_rate": share[default],
            "float32_over_ort": seconds[REFERENCE] / seconds[exact],
            "float32_share_of_matrix_rate": share[exact],
            "matrix_rate_gflops": rate / 1e9,
        },
    )
    return 0


def _variants(path: Path, network: I3D, clips: NDArray[np.uint8]) -> dict[str, Callable]:
    def eager() -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(clips)).numpy()

    def autocast() -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return network(torch.from_numpy(clips)).float().numpy()

    work: dict[str, Callable] = {EAGER: eager}
    runtimes = [Runtime("float32", "onnxruntime"), Runtime("float32", "openvino")]
    if processor_has_bfloat16():
        work["PyTorch autocast, bfloat16"] = autocast
        runtimes.append(Runtime("bfloat16", "openvino"))
    for runtime in runtimes:
        work[_name(runtime)] = _run(path, runtime, clips)
    return work


def _run(path: Path, runtime: Runtime, clips: NDArray[np.uint8]) -> Callable:
    network = open_network(path, runtime.backend, runtime.precision)
    return lambda: network.run(["features"], {"clips": clips})[0]


def _name(runtime: Runtime) -> str:
    library = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[runtime.backend]
    return f"{library}, {runtime.precision}"


def first_clips(folder: Path) -> NDArray[np.uint8]:
    """One clip of each video of a folder, from its first seconds: uint8 [n, 16, 224, 224, 3]."""
    clips = []
    for path in sorted(folder.iterdir()):
        video = open_video(path, VideoLimits())
        window = next(video.windows(PLAN, window_frames=64, allow_partial=True))
        clips.append(window.frames[-PLAN.frames_per_clip :])
        video.close()
    return np.stack([clip for clip in clips if len(clip) == PLAN.frames_per_clip])


if __name__ == "__main__":
    sys.exit(main())
