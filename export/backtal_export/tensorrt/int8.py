"""A float32 ONNX file in int8, as a file of its own.

TensorRT 11 builds strongly typed networks alone, and 10 can: an engine computes in the types that
the file has, so that what was gated is what runs. int8 is QuantizeLinear and DequantizeLinear
around each convolution and product, symmetric as TensorRT wants it, with ranges found on real
clips.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidArgument

_QUANTIZED = ("Conv", "MatMul", "Gemm")


def to_int8(model_file: bytes, batches: Iterable[Mapping[str, NDArray[Any]]]) -> bytes:
    """The network with its convolutions and products in int8.

    batches: inputs by name, on which the ranges of the values between are found (largest and
    smallest). Raises InvalidArgument where there is none.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    reader = _Batches(batches)
    with tempfile.TemporaryDirectory(prefix="backtal-int8-") as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model_file)
        quiet = logging.getLogger()
        level = quiet.level
        # It advises a step of preparation that our graphs, already folded, do not need.
        quiet.setLevel(logging.ERROR)
        try:
            quantize_static(
                source,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    # TensorRT adds the bias in float.
                    "QuantizeBias": False,
                },
            )
        finally:
            quiet.setLevel(level)
        return target.read_bytes()


class _Batches:
    """A calibration reader of ONNX Runtime over any batches."""

    def __init__(self, batches: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        kept = [
            {name: np.ascontiguousarray(array) for name, array in batch.items()}
            for batch in batches
        ]
        if not kept:
            raise InvalidArgument("int8 needs clips to find its ranges on: there are 0 batches")
        self._kept = kept
        self._left = self._started()

    def _started(self) -> Iterator[dict[str, NDArray[Any]]]:
        return iter(self._kept)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch, None after the last one."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Start again."""
        self._left = self._started()

    def __len__(self) -> int:
        return len(self._kept)
