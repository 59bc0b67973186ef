"""A network file run in this process: by ONNX Runtime, or by OpenVINO.

ONNX Runtime in float32 is what every other variant is measured against. OpenVINO reads the same
file, computes a CPU's convolutions and products faster, and in bfloat16 where the processor has
it (docs/precision.md). Offline work and our Triton backends open networks here, with the same
options, so that their answers are the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidArgument, InvalidFile, MissingDependency, NotFound
from backtal.precision import Precision, computed_in

Backend = Literal["onnxruntime", "openvino"]
Arrays = Mapping[str, NDArray[Any]]

PROVIDERS = ("CPUExecutionProvider",)

_log = logging.getLogger(__name__)


class OpenNetwork(Protocol):
    """A network that is loaded; calls may come from several threads."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The named outputs, in that order.

        Raises InvalidArgument, naming the input, where names, types or shapes do not fit.
        """
        ...


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_network(
    path: Path, backend: Backend, precision: Precision, threads: int | None = None
) -> OpenNetwork:
    """Load the ONNX file `path`; `threads` of None: all cores.

    Raises NotFound; InvalidFile where it cannot be loaded; MissingDependency, naming the extra.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    if backend == "openvino":
        return OpenVinoNetwork(path, precision, threads)
    return OnnxRuntimeNetwork(path, session_options(threads))


def session_options(threads: int | None = None) -> Any:
    """ONNX Runtime's options, the same wherever a network runs; `threads` of None: all cores.

    Raises MissingDependency where ONNX Runtime is not installed.
    """
    options = _onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads or num_cores()
    options.inter_op_num_threads = 1
    # Threads that spin between runs take the core that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


class OnnxRuntimeNetwork:
    """A session of ONNX Runtime on the CPU; see `OpenNetwork`."""

    def __init__(self, path: Path, options: Any) -> None:
        runtime = _onnxruntime()
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=PROVIDERS)
        except Exception as error:
            raise InvalidFile(f"{path} is no network that can be loaded: {error}") from None
        self.input_names = tuple(entry.name for entry in self._session.get_inputs())
        self.output_names = tuple(entry.name for entry in self._session.get_outputs())

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """See `OpenNetwork.run`."""
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            return list(self._session.run(list(outputs), dict(inputs)))
        except (state.InvalidArgument, ValueError) as error:
            # Names the input, its shape or type, and what the network takes.
            raise InvalidArgument(str(error)) from None


class OpenVinoNetwork:
    """A network compiled by OpenVINO for this CPU; see `OpenNetwork`."""

    def __init__(self, path: Path, precision: Precision, threads: int | None = None) -> None:
        openvino = _openvino()
        here = computed_in(precision)
        if here != precision:
            _log.warning("%s runs in %s: this processor has no %s", path, here, precision)
        core = openvino.Core()
        try:
            model = core.read_model(path)
            self._compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16" if here == "bfloat16" else "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads or num_cores(),
                    # Decoding and the other networks share the cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise InvalidFile(f"{path} is no network that can be loaded: {error}") from None
        self._inputs = {entry.get_any_name(): entry for entry in self._compiled.inputs}
        self.input_names = tuple(self._inputs)
        self.output_names = tuple(entry.get_any_name() for entry in self._compiled.outputs)
        self._request = self._compiled.create_infer_request()
        # One request has every core: two at once would only wait for each other.
        self._lock = Lock()

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """See `OpenNetwork.run`."""
        self._check(inputs)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        with self._lock:
            self._request.infer(contiguous, share_inputs=True)
            # The request's own memory, which the next call writes over.
            return [np.array(self._request.get_tensor(name).data) for name in outputs]

    def _check(self, inputs: Arrays) -> None:
        if set(inputs) != set(self._inputs):
            raise InvalidArgument(
                f"inputs are {', '.join(sorted(inputs)) or 'none'}, "
                f"the network takes {', '.join(sorted(self._inputs))}"
            )
        for name, array in inputs.items():
            wanted = self._inputs[name]
            shape, kind = wanted.partial_shape, wanted.element_type.to_dtype()
            if array.dtype != kind:
                raise InvalidArgument(f"input {name} is {array.dtype}, the network takes {kind}")
            if not shape.compatible(_openvino().PartialShape(list(array.shape))):
                raise InvalidArgument(
                    f"input {name} has shape {list(array.shape)}, the network takes {shape}"
                )


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency(
            "onnxruntime is not installed: pip install 'backtal[local]', or onnxruntime-gpu"
        ) from None
    return onnxruntime


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingDependency(
            "openvino is not installed: pip install 'backtal[local]', or export the bundle with "
            "--precision float32, which needs only onnxruntime"
        ) from None
    return openvino
