"""Which runtime computes a network for which target, and the configuration that says so.

| target | float32 | bfloat16 | float16 |
| --- | --- | --- | --- |
| embedded, triton-cpu | ONNX Runtime | OpenVINO | |
| triton-gpu | ONNX Runtime, CUDA | | the same |
| triton-tensorrt | ONNX Runtime, TensorRT | | the same |

Every variant passes a gate before it is written, on the machine that writes it. float16's is
measured without a GPU (`gate_stages.as_served`); how fast it is was measured on none, so float32
stays the default of both targets.

`embedded` and `triton-cpu` differ in one thing: the embedded Triton's `openvino` backend is ours
and computes in float32 where it is told nothing else, NVIDIA's then takes what OpenVINO likes
best. So float32 by OpenVINO, the default of a processor without bfloat16, is for `embedded` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from backtal.errors import InvalidArgument
from backtal.manifest import ClipPlan, StreamName, Target
from backtal.networks import Backend
from backtal.precision import Precision, computed_in, processor_has_bfloat16

TEMPLATES = Path(__file__).parent / "model_repository"

PRECISIONS: Mapping[Target, tuple[Precision, ...]] = {
    "embedded": ("float32", "bfloat16"),
    "triton-cpu": ("float32", "bfloat16"),
    "triton-gpu": ("float32", "float16"),
    "triton-tensorrt": ("float32", "float16"),
}
# What TensorRT's profiles span. Beyond them the provider builds another engine.
_CLIPS_PER_CALL = (1, 4, 16)
_POSITIONS_PER_CALL = (1, 128, 1024)


@dataclass(frozen=True)
class Runtime:
    """What computes a network."""

    precision: Precision
    backend: Backend

    @property
    def suffix(self) -> str:
        """What a model's name says of it; nothing for float32 by ONNX Runtime."""
        if self.backend == "onnxruntime" and self.precision == "float32":
            return ""
        return f"-{self.precision}"


@dataclass(frozen=True)
class Profile:
    """The shapes that TensorRT prepares for, as its provider reads them: ``name:1x16x224``."""

    smallest: str
    usual: str
    largest: str

    @classmethod
    def of_clips(cls, clip_shape: Sequence[int]) -> Profile:
        """For a backbone's `clips`, each of that shape."""
        shape = "x".join(map(str, clip_shape))
        return cls(*(f"clips:{clips}x{shape}" for clips in _CLIPS_PER_CALL))

    @classmethod
    def of_features(cls, feature_dim: int) -> Profile:
        """For a CAS network's `features`."""
        return cls(*(f"features:1x{feature_dim}x{length}" for length in _POSITIONS_PER_CALL))


REFERENCE = Runtime("float32", "onnxruntime")


def choose_runtime(target: Target, precision: Precision | None) -> Runtime:
    """The runtime of `target` at `precision`; None: the fastest that this machine can prove.

    Raises InvalidArgument where the target has no such precision, or this processor lacks it: a
    bundle in bfloat16 is served here all the same, but nothing here can prove it.
    """
    if precision is None:
        return _default_runtime(target)
    allowed = PRECISIONS[target]
    if precision not in allowed:
        raise InvalidArgument(
            f"precision is {precision!r}, allowed for {target} are {', '.join(allowed)}"
        )
    if computed_in(precision) != precision:
        raise InvalidArgument(
            f"precision is {precision!r}, which this processor has no instructions for and cannot "
            f"prove: export on one that has (AVX-512 BF16 or AMX), or take float32"
        )
    if precision == "bfloat16":
        return Runtime(precision, "openvino")
    return Runtime(precision, "onnxruntime")


def _default_runtime(target: Target) -> Runtime:
    if target in ("triton-gpu", "triton-tensorrt"):
        return REFERENCE
    if processor_has_bfloat16():
        return Runtime("bfloat16", "openvino")
    return Runtime("float32", "openvino") if target == "embedded" else REFERENCE


def backbone_runtime(plan: ClipPlan, stream: StreamName, runtime: Runtime) -> Runtime:
    """The runtime of a stream's backbone in a bundle of `runtime`.

    One that finds flow stays in float32: in 16 bits a grey level has next to no fraction.
    """
    finds_flow = stream == "flow" and plan.takes_frames(stream)
    return REFERENCE if finds_flow else runtime


def instance_kind(target: Target) -> str:
    """Triton's kind of instance."""
    return "KIND_GPU" if target in ("triton-gpu", "triton-tensorrt") else "KIND_CPU"


def runtime_options(target: Target, runtime: Runtime, model: str, profile: Profile) -> str:
    """The part of a configuration that only this runtime understands."""
    name: str = runtime.backend
    if target == "triton-tensorrt":
        name = "tensorrt"
    elif runtime.backend == "openvino" and runtime.precision != "float32":
        name = "openvino_bfloat16"
    text = (TEMPLATES / "options" / f"{name}.pbtxt").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=model,
        smallest=profile.smallest,
        usual=profile.usual,
        largest=profile.largest,
        precision_mode="FP16" if runtime.precision == "float16" else "FP32",
    )


def fill_template(template: str, **values: object) -> str:
    """The config.pbtxt of a template folder with `values` in place of its names."""
    text = (TEMPLATES / template / "config.pbtxt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
