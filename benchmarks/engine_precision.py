"""How far the float16 and int8 files that GPUs are given are from float32.

    python benchmarks/engine_precision.py [--quick] [--json FILE] [--videos FOLDER]

By ONNX Runtime on the CPU: no GPU's speed is in this. float16 is rounded after every node, as a
GPU does; beside it the file as ONNX Runtime itself computes it here, which rounds the weights
alone. int8's ranges are found on clips of one video; the cosine is the lowest over a batch of
clips of another.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from backtal.backbones import find_backbone
from backtal.extraction import CLIPS_PER_BATCH
from backtal.manifest import ClipPlan
from backtal.runtime import PROVIDERS, session_options
from backtal_export.float16 import rounded_as_float16, to_float16
from backtal_export.tensorrt.bundle import video_batches
from backtal_export.tensorrt.engine import lowest_cosine
from backtal_export.tensorrt.int8 import to_int8
from backtal_export.tensorrt.network import for_tensorrt

ROOT = Path(__file__).resolve().parents[1]
BACKBONES = ("efficientnet-lite0", "i3d-rgb")
CALIBRATED_ON = "anet_v_GGSY1Qvo990.mp4"
MEASURED_ON = "mmskeleton_skateboarding.mp4"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the light backbone alone")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--videos", type=Path, default=ROOT.parent / "shared/media/clips")
    arguments = parser.parse_args()
    calibration = video_batches(arguments.videos / CALIBRATED_ON, ClipPlan(), "rgb")
    clips = video_batches(arguments.videos / MEASURED_ON, ClipPlan(), "rgb")[0]
    figures: dict[str, float] = {}
    print(f"ranges: {CLIPS_PER_BATCH * len(calibration)} clips or fewer of {CALIBRATED_ON}")
    print(f"cosines: the lowest of {len(clips)} clips of {MEASURED_ON}")
    print("| backbone | float16 | float16, weights alone | int8 |")
    print("| --- | --- | --- | --- |")
    for name in BACKBONES[:1] if arguments.quick else BACKBONES:
        model_file = find_backbone(name).model_file(None, print)
        wanted = features(model_file, clips)
        float16 = to_float16(model_file)
        files = {
            "float16": rounded_as_float16(float16),
            "float16_weights": float16,
            "int8": to_int8(model_file, [{"clips": batch} for batch in calibration]),
        }
        for precision, data in files.items():
            cosine = lowest_cosine(features(for_tensorrt(data), clips), wanted)
            figures[f"{name}.{precision}.feature_cosine"] = cosine
        cosines = [figures[f"{name}.{precision}.feature_cosine"] for precision in files]
        print("|", " | ".join([name, *(f"{cosine:.6f}" for cosine in cosines)]), "|", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def features(model_file: bytes, clips: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model_file, session_options(), providers=PROVIDERS)
    return {"features": session.run(["features"], {"clips": clips})[0]}


if __name__ == "__main__":
    sys.exit(main())
