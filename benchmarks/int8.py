"""I3D RGB in int8: how close, and how fast beside bfloat16. Why int8 is not offered.

    python benchmarks/int8.py --videos FOLDER [--quick] [--json FILE]

Static quantisation by ONNX Runtime (QDQ, weights by channel, activations by their extremes),
calibrated on one clip of each video of a folder; measured on four other videos' clips, or, of a
folder of fewer than five, on the same.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from backbone import first_clips
from machine import options, shortest, show, write
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from backtal.networks import open_network
from backtal_export.backbones.i3d_onnx import i3d_rgb_onnx
from backtal_export.backbones.weights import i3d_rgb_weights
from backtal_export.gates import GateThresholds, cosines

MEASURED_CLIPS = 4


class Clips(CalibrationDataReader):
    """One clip after another."""

    def __init__(self, clips: NDArray[np.uint8]) -> None:
        self._rest: Iterator[NDArray[np.uint8]] = iter(clips[:, None])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        clip = next(self._rest, None)
        return None if clip is None else {"clips": clip}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos")
    arguments = parser.parse_args()
    clips = first_clips(arguments.videos)
    measured, calibration = clips[:MEASURED_CLIPS], clips[MEASURED_CLIPS:]
    if not len(calibration):
        calibration = measured
    with tempfile.TemporaryDirectory() as folder:
        exact, quantised = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        exact.write_bytes(i3d_rgb_onnx(i3d_rgb_weights(lambda _: None)))
        quantize_static(
            exact,
            quantised,
            Clips(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MaxPool", "Concat"],
        )
        networks = {
            "float32": open_network(exact, "onnxruntime", "float32"),
            "bfloat16": open_network(exact, "openvino", "bfloat16"),
            # What is not quantised is computed in bfloat16.
            "int8": open_network(quantised, "openvino", "bfloat16"),
        }
        work = {
            name: lambda network=network: network.run(["features"], {"clips": measured})[0]
            for name, network in networks.items()
        }
        features = {name: call() for name, call in work.items()}
        seconds = shortest(work, 2 if arguments.quick else 8)
    cosine = {name: float(cosines(features["float32"], f).min()) for name, f in features.items()}
    rows = [(name, f"{seconds[name] / len(measured):.3f}", f"{cosine[name]:.5f}") for name in work]
    title = f"I3D RGB by OpenVINO, calibrated on {len(calibration)} clips"
    show(title, ("", "s a clip", "lowest cosine"), rows)
    write(
        arguments.json,
        {
            "int8_over_bfloat16": seconds["bfloat16"] / seconds["int8"],
            "int8_feature_cosine": cosine["int8"],
            "gate_feature_cosine": GateThresholds().minimum_feature_cosine,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
