"""Between the wire's tensors and the pipeline's Request and Answer: DESIGN, "The wire".

NumPy in and out, no Triton: `pipeline_model` carries the arrays to and from it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.detection import provenance
from backtal.errors import InvalidArgument, InvalidFile
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.localization.choice import nearest
from backtal.manifest import BundleDescription, Manifest
from backtal.pipeline import Answer, Kept, Progress, Request
from backtal.segments import Segment
from backtal_serving.uris import RemoteAccess, resolve

SOURCES = ("video", "uri", "features")
CLIP_TIMES = ("clip_start_seconds", "clip_end_seconds")
WITH_FEATURES = ("duration", *CLIP_TIMES)
PARAMETERS = (
    "score_threshold",
    "max_segments",
    "classes",
    "nms",
    "allow_partial",
    "backbone",
)
# Triton and its clients add these of their own.
RESERVED_PREFIX = "triton_"

Tensors = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, Any]


def decode(
    tensors: Tensors,
    parameters: Parameters,
    manifest: Manifest,
    allowed_roots: Sequence[Path],
    remote: RemoteAccess | None = None,
    spooled: Path | None = None,
) -> Request:
    """The request that these input tensors and request parameters mean.

    `spooled` is a `video` that came as a file of the front door's instead of a tensor.

    Ranges and class names are the pipeline's to check. Raises InvalidArgument by the tensor's or
    parameter's name, value and what is allowed; PermissionDenied and NotFound for a `uri`.
    """
    check_parameter_names(parameters)
    source = _the_source([*tensors, "video"] if spooled else tensors)
    if source != "features":
        strays = [name for name in WITH_FEATURES if name in tensors]
        if strays:
            raise InvalidArgument(f"{strays[0]} goes with features, the request has {source}")
        if "backbone" in parameters:
            raise InvalidArgument(f"backbone goes with features, the request has {source}")
    choice: dict[str, Any] = {
        "score_threshold": _number(parameters, "score_threshold"),
        "max_segments": _whole_number(parameters, "max_segments"),
        "classes": _classes(parameters, manifest.description),
        "nms": _number(parameters, "nms"),
        "allow_partial": _flag(parameters, "allow_partial"),
    }
    if spooled is not None:
        return Request(path=spooled, **choice)
    if source == "video":
        return Request(video=_bytes(tensors, "video"), **choice)
    if source == "features":
        return Request(features=_features(tensors, parameters, manifest), **choice)
    # Last: what is opened here is closed by the pipeline.
    found = resolve(_text(tensors, "uri"), allowed_roots, remote)
    if isinstance(found, Path):
        return Request(path=found, **choice)
    return Request(remote=found, **choice)


def kept(requested: Collection[str]) -> tuple[Kept, ...]:
    """What the pipeline is to keep for the `requested` output tensors."""
    found: list[Kept] = ["cas"] if "cas" in requested else []
    return (*found, "features") if {"features", *CLIP_TIMES} & set(requested) else tuple(found)


def encode(
    answer: Answer, manifest: Manifest, requested: Collection[str]
) -> dict[str, NDArray[Any]]:
    """The output tensors of `answer` that are `requested`, by name."""
    features = answer.features
    tensors: dict[str, NDArray[Any]] = {
        **_segment_tensors(answer.segments),
        "duration": np.array([answer.duration_seconds], np.float32),
    }
    if answer.cas is not None:
        tensors["cas"] = answer.cas
    if "position_seconds" in requested:
        tensors["position_seconds"] = answer.position_seconds_middle.astype(np.float32)
    if features is not None:
        tensors["features"] = features.values
        tensors["clip_start_seconds"] = features.clip_start_seconds
        tensors["clip_end_seconds"] = features.clip_end_seconds
    if "provenance" in requested:
        text = json.dumps(provenance(answer, manifest))
        tensors["provenance"] = np.array([text.encode()], np.object_)
    return {
        name: np.ascontiguousarray(values) for name, values in tensors.items() if name in requested
    }


def encode_progress(progress: Progress, requested: Collection[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a progress message: seconds done and in all, and segments that are final."""
    values = [progress.done_seconds, progress.total_seconds]
    tensors: dict[str, NDArray[Any]] = {"progress": np.array(values, np.float32)}
    if progress.segments:
        tensors |= _segment_tensors(progress.segments)
    return {name: values for name, values in tensors.items() if name in requested}


def _segment_tensors(segments: Sequence[Segment]) -> dict[str, NDArray[Any]]:
    spans = [(segment.start_seconds, segment.end_seconds) for segment in segments]
    return {
        "segments": np.array(spans, np.float32).reshape(-1, 2),
        "scores": np.array([segment.score for segment in segments], np.float32),
        "labels": np.array([segment.label.encode() for segment in segments], np.object_),
    }


def check_parameter_names(parameters: Parameters) -> None:
    """Raise InvalidArgument for a parameter that nobody knows, with the nearest known one."""
    for name in parameters:
        if name in PARAMETERS or name.startswith(RESERVED_PREFIX):
            continue
        raise InvalidArgument(f"unknown parameter {name!r}{nearest(name, PARAMETERS)}")


def _the_source(names: Collection[str]) -> str:
    given = [name for name in SOURCES if name in names]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidArgument(f"give one of {', '.join(SOURCES)}; the request has {found}")
    return given[0]


def _features(tensors: Tensors, parameters: Parameters, manifest: Manifest) -> FeatureSequence:
    description = manifest.description
    hashes = tuple(backbone.sha256 for backbone in description.backbones)
    _check_backbone(parameters, hashes)
    values = _floats(tensors, "features", 2, "[D, N]")
    if values.shape[0] != description.feature_dim or values.shape[1] == 0:
        raise InvalidArgument(
            f"features has shape {list(values.shape)}, {description.name} takes "
            f"[{description.feature_dim}, N] with N of at least 1"
        )
    if "duration" not in tensors:
        raise InvalidArgument("features needs duration, the video's length in seconds, FP32 [1]")
    durations = _floats(tensors, "duration", 1, "[1]")
    if len(durations) != 1:
        raise InvalidArgument(f"duration has shape {list(durations.shape)}, expected [1]")
    duration_seconds = float(durations[0])
    if not (math.isfinite(duration_seconds) and duration_seconds > 0):
        raise InvalidArgument(f"duration is {duration_seconds}, allowed are seconds above 0")
    streams = tuple(backbone.stream for backbone in description.backbones)
    # What the caller did not say is not claimed in the answer.
    made_by = FeatureProvenance(backbone_sha256=hashes if "backbone" in parameters else ())
    times = [name for name in CLIP_TIMES if name in tensors]
    if len(times) == 1:
        raise InvalidArgument(f"give {CLIP_TIMES[0]} and {CLIP_TIMES[1]} both or neither")
    try:
        if not times:
            return FeatureSequence.from_equal_parts(
                values, duration_seconds, streams=streams, provenance=made_by
            )
        return FeatureSequence(
            values=values,
            clip_start_seconds=_floats(tensors, CLIP_TIMES[0], 1, "[N]"),
            clip_end_seconds=_floats(tensors, CLIP_TIMES[1], 1, "[N]"),
            duration_seconds=duration_seconds,
            num_frames_decoded=0,
            streams=streams,
            provenance=made_by,
        )
    except InvalidFile as error:
        raise InvalidArgument(f"features: {error.message}") from None


def _check_backbone(parameters: Parameters, hashes: tuple[str, ...]) -> None:
    """`backbone` is the hash of each stream's backbone, with commas between."""
    expected = ",".join(hashes)
    given = parameters.get("backbone", expected)
    if given != expected:
        raise InvalidArgument(
            f"backbone is {given!r}: features of another backbone; this bundle's is {expected!r}"
        )


def _floats(tensors: Tensors, name: str, dimensions: int, shape: str) -> NDArray[np.float32]:
    values = tensors[name]
    if values.dtype != np.float32 or values.ndim != dimensions:
        raise InvalidArgument(
            f"{name} is {values.dtype} {list(values.shape)}, expected float32 {shape}"
        )
    return values


def _bytes(tensors: Tensors, name: str) -> bytes:
    values = tensors[name]
    if values.size != 1:
        raise InvalidArgument(f"{name} has shape {list(values.shape)}, expected [1]")
    value = values.reshape(-1)[0]
    return value if isinstance(value, bytes) else bytes(str(value), "utf-8")


def _text(tensors: Tensors, name: str) -> str:
    value = _bytes(tensors, name)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} {value[:80]!r} is not UTF-8") from None


def _number(parameters: Parameters, name: str) -> float | None:
    """A number, or one written in a string: not every client can send a floating-point one."""
    value = parameters.get(name)
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, bool):
        with suppress(TypeError, ValueError):
            number = float(value)
    if not math.isfinite(number):
        raise InvalidArgument(f"{name} is {value!r}, allowed is a number")
    return number


def _whole_number(parameters: Parameters, name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
        raise InvalidArgument(f"{name} is {value!r}, allowed is a whole number")
    return int(value)


def _flag(parameters: Parameters, name: str) -> bool:
    value = parameters.get(name, False)
    spelled = {"true": True, "false": False}.get(str(value).lower())
    if spelled is None:
        raise InvalidArgument(f"{name} is {value!r}, allowed are true and false")
    return spelled


def _classes(parameters: Parameters, description: BundleDescription) -> tuple[str, ...] | None:
    text = parameters.get("classes")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InvalidArgument(
            f"classes is {text!r}, expected a JSON list of names in a string, such as "
            f"{json.dumps([description.classes[0]])!r}"
        )
    return tuple(names)
