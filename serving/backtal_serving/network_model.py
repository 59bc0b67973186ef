"""What our Triton backends `onnxruntime` and `openvino` share: one network, run for requests.

Each is written in Python for a Triton that has no native one, and loads an unmodified
configuration for it: ``model.onnx`` of the version's folder or `default_model_filename`, the
backend's own parameters, dynamic batching. The network is opened by `backtal.networks`, so that
offline work gives the same answers.
"""

from __future__ import annotations

import json
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from backtal.errors import BacktalError, Internal, InvalidArgument, to_wire
from backtal.networks import OpenNetwork
from backtal_serving.model_process import end_process
from backtal_serving.numpy_version import check_numpy

Inputs = dict[str, NDArray[Any]]


class NetworkModel(ABC):
    """One instance of one network."""

    @abstractmethod
    def open(self, path: Path, config: dict[str, Any]) -> OpenNetwork:
        """Load `path` as the model's configuration says."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network on the CPU."""
        check_numpy()
        config = json.loads(args["model_config"])
        # For a Python-based backend, `model_repository` is the backend's folder in some releases.
        folder = Path(args["model_repository"]) / args["model_version"]
        self._network = self.open(
            folder / (config.get("default_model_filename") or "model.onnx"), config
        )
        self._batches = int(config.get("max_batch_size", 0)) > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request; with batching, one run for all that fit together."""
        inputs = [
            {
                name: pb_utils.get_input_tensor_by_name(request, name)
                for name in self._network.input_names
            }
            for request in requests
        ]
        arrays = [
            {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
            for tensors in inputs
        ]
        if self._batches and len(requests) > 1 and _same_items(arrays):
            return self._respond_together(requests, arrays)
        return [self._respond(*pair) for pair in zip(requests, arrays, strict=True)]

    def finalize(self) -> None:
        """End this process."""
        end_process()

    def _respond(self, request: Any, arrays: Inputs) -> Any:
        names = self._wanted(request)
        try:
            outputs = self._run(names, arrays)
        except BacktalError as error:
            return _error_response(error)
        return _response(names, outputs)

    def _respond_together(self, requests: list[Any], arrays: list[Inputs]) -> list[Any]:
        names = list(self._network.output_names)
        joined = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
        try:
            outputs = self._run(names, joined)
        except BacktalError as error:
            return [_error_response(error) for _ in requests]
        edges = np.cumsum([len(next(iter(one.values()))) for one in arrays])[:-1]
        parts = [np.split(output, edges) for output in outputs]
        return [_response(names, [part[index] for part in parts]) for index in range(len(requests))]

    def _wanted(self, request: Any) -> list[str]:
        requested = set(request.requested_output_names())
        return [name for name in self._network.output_names if name in requested]

    def _run(self, names: list[str], arrays: Inputs) -> list[NDArray[Any]]:
        try:
            return self._network.run(names, arrays)
        except BacktalError:
            raise
        except Exception:
            pb_utils.Logger.log_error(traceback.format_exc())
            raise Internal("the network failed; the server's log says why") from None


def text(config: dict[str, Any], name: str) -> str:
    """A parameter of a model's configuration, empty where it is not set."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", ""))


def number(config: dict[str, Any], name: str) -> int:
    """A parameter that is a whole number, 0 where it is not set."""
    return int(text(config, name) or 0)


def _same_items(arrays: list[Inputs]) -> bool:
    shapes = [{name: array.shape[1:] for name, array in one.items()} for one in arrays]
    return all(shape == shapes[0] for shape in shapes)


def _response(names: list[str], outputs: list[NDArray[Any]]) -> Any:
    # Triton copies the memory as it lies, whatever the strides say.
    tensors = [
        pb_utils.Tensor(name, np.ascontiguousarray(output))
        for name, output in zip(names, outputs, strict=True)
    ]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _error_response(error: BacktalError) -> Any:
    code = (
        pb_utils.TritonError.INVALID_ARG
        if isinstance(error, InvalidArgument)
        else pb_utils.TritonError.INTERNAL
    )
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(to_wire(error), code))
