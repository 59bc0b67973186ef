"""Build an engine on this machine's GPU, run it, and hold its answers against ONNX Runtime's.

An engine is good for the GPU and the TensorRT that built it. Nothing here runs without both;
`check_machine` says in one sentence what is missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import Internal, InvalidFile, MissingDependency
from backtal.runtime import PROVIDERS, session_options
from backtal_export.cache import appearing_whole
from backtal_export.tensorrt.network import for_tensorrt
from backtal_export.tensorrt.profiles import ShapeProfile

_OLDEST_TENSORRT = (10, 0)


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    workspace_bytes: what a layer may take beside its weights. optimization_level: 0 to 5, higher
    builds longer and may run faster. timing_cache: a file that keeps what was measured, so that
    the next build on a GPU of this kind takes seconds; None: measure anew.
    """

    workspace_bytes: int = 2 << 30
    optimization_level: int = 3
    timing_cache: Path | None = None


def check_machine() -> Any:
    """The module `tensorrt`, where this machine can build engines.

    Raises MissingDependency, saying what is missing: a GPU, its driver, TensorRT.
    """
    problem = gpu_problem()
    if problem is not None:
        raise MissingDependency(f"TensorRT engines are built on an NVIDIA GPU: {problem}")
    try:
        import tensorrt
    except ImportError as error:
        raise MissingDependency(
            f"TensorRT is not installed ({error}): pip install 'tensorrt-cu12>=10,<12'"
        ) from None
    found = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if found < _OLDEST_TENSORRT:
        raise MissingDependency(
            f"TensorRT is {tensorrt.__version__}, needed is 10.0 or later: "
            f"pip install 'tensorrt-cu12>=10,<12'"
        )
    return tensorrt


def gpu_problem(library: str = "libcuda.so.1") -> str | None:
    """Why CUDA has no device here; None where it has one."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return f"this machine has no driver for one ({library} is not there)"
    code = int(cuda.cuInit(0))
    if code != 0:
        return f"its driver does not start (cuInit gives {code})"
    count = ctypes.c_int(0)
    code = int(cuda.cuDeviceGetCount(ctypes.byref(count)))
    if code != 0 or count.value < 1:
        return f"its driver has {count.value} devices (cuDeviceGetCount gives {code})"
    return None


def build_engine(
    model_file: bytes, profiles: Sequence[ShapeProfile], settings: BuildSettings | None = None
) -> bytes:
    """The engine of an ONNX file, for these shapes of its inputs; its types are the file's.

    Raises MissingDependency (see `check_machine`); InvalidFile where TensorRT cannot read the
    file, with its own words; Internal where it reads it and builds nothing.
    """
    ready = for_tensorrt(model_file)
    trt = check_machine()
    settings = settings or BuildSettings()
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    # TensorRT 11 has no other networks, and passes over the flag.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not parser.parse(ready):
        words = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InvalidFile(f"TensorRT {trt.__version__} cannot read the network: {words}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    config.builder_optimization_level = settings.optimization_level
    shapes = builder.create_optimization_profile()
    for profile in profiles:
        shapes.set_shape(profile.name, profile.smallest, profile.usual, profile.largest)
    config.add_optimization_profile(shapes)
    cache = _timing_cache(config, settings.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Internal(f"TensorRT {trt.__version__} built no engine; its log says why")
    if settings.timing_cache is not None:
        with appearing_whole(settings.timing_cache) as temporary:
            temporary.write_bytes(bytes(cache.serialize()))
    return bytes(plan)


def run_engine(engine: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The engine's outputs by name. Raises MissingDependency; Internal where it does not run."""
    import torch

    trt = check_machine()
    if not torch.cuda.is_available():
        raise MissingDependency("this PyTorch is built without CUDA, which carries the arrays over")
    loaded = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(engine)
    context = loaded.create_execution_context()
    names = [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]
    tensors: dict[str, torch.Tensor] = {}
    for name, array in inputs.items():
        if not context.set_input_shape(name, array.shape):
            raise Internal(f"the engine takes no {name} of the shape {list(array.shape)}")
        tensors[name] = torch.from_numpy(np.ascontiguousarray(array)).cuda()
    outputs = [name for name in names if loaded.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    for name in outputs:
        kind = trt.nptype(loaded.get_tensor_dtype(name))
        shape = tuple(context.get_tensor_shape(name))
        tensors[name] = torch.from_numpy(np.empty(shape, kind)).cuda()
    for name, tensor in tensors.items():
        context.set_tensor_address(name, tensor.data_ptr())
    stream = torch.cuda.current_stream()
    if not context.execute_async_v3(stream.cuda_stream):
        raise Internal("the engine did not run; TensorRT's log says why")
    stream.synchronize()
    return {name: tensors[name].cpu().numpy() for name in outputs}


def engine_cosine(engine: bytes, model_file: bytes, inputs: Mapping[str, NDArray[Any]]) -> float:
    """The lowest cosine, over outputs and the items of a batch, to ONNX Runtime's float32.

    model_file: the float32 network, whatever the engine was built from.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model_file, session_options(), providers=list(PROVIDERS))
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    return lowest_cosine(run_engine(engine, inputs), wanted)


def lowest_cosine(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> float:
    """The lowest cosine between the items (axis 0) of arrays of the same names and shapes.

    Two items of zeros have 1, one of zeros and one of anything else 0, one with values that are no
    finite numbers -1. Raises Internal where names or shapes differ.
    """
    lowest = 1.0
    for name, array in wanted.items():
        if name not in found or found[name].shape != array.shape:
            shape = list(found[name].shape) if name in found else "missing"
            raise Internal(f"output {name} is {shape}, expected {list(array.shape)}")
        ours = found[name].reshape(len(array), -1).astype(np.float64)
        finite = np.isfinite(ours).all(axis=1)
        ours[~finite] = 0
        theirs = array.reshape(len(array), -1).astype(np.float64)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        products = (ours * theirs).sum(axis=1)
        same = (ours == theirs).all(axis=1)
        cosines = np.where(same, 1.0, products / np.where(lengths > 0, lengths, 1.0))
        lowest = min(lowest, float(np.where(finite, cosines, -1.0).min()))
    return lowest


def _timing_cache(config: Any, path: Path | None) -> Any:
    known = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(known)
    # A cache of another GPU or version is refused, and filled anew.
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
