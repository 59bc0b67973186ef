"""Seconds a clip of the RGB backbones that come with backtal, by ONNX Runtime in float32.

    python benchmarks/light_backbone.py [--quick] [--json FILE]

The same four drawn clips for each, in turns, with as many threads as there are cores; the
shortest time counts. `light_over_i3d` is how many times faster the light one is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from backtal.backbones import find_backbone
from backtal.runtime import PROVIDERS, num_cores, session_options

BACKBONES = ("i3d-rgb", "efficientnet-lite0")
CLIPS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two turns")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    clips = np.random.default_rng(0).integers(0, 256, (CLIPS, 16, 224, 224, 3), np.uint8)
    sessions = {
        name: onnxruntime.InferenceSession(
            find_backbone(name).model_file(None, print), session_options(), providers=PROVIDERS
        )
        for name in BACKBONES
    }
    shortest = dict.fromkeys(BACKBONES, np.inf)
    for _ in range(2 if arguments.quick else 8):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(["features"], {"clips": clips})
            shortest[name] = min(shortest[name], (time.perf_counter() - started) / CLIPS)
    print(f"{num_cores()} cores, load {os.getloadavg()[0]:.1f}")
    print("| backbone | features | seconds a clip |")
    print("| --- | --- | --- |")
    for name, seconds in shortest.items():
        print(f"| {name} | {find_backbone(name).feature_dim} | {seconds:.4f} |")
    ratio = shortest["i3d-rgb"] / shortest["efficientnet-lite0"]
    print(f"light_over_i3d {ratio:.1f}")
    if arguments.json is not None:
        figures = {f"{name}.seconds_per_clip": value for name, value in shortest.items()}
        arguments.json.write_text(json.dumps({**figures, "light_over_i3d": ratio}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
