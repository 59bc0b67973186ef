"""What the sync and the asyncio client share: messages, answers, errors, and when to retry.

tritonclient is imported when it is needed, so that importing this module costs nothing. The
tensors are DESIGN's table, "The wire"; errors come back as the kinds of `backtal.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    LimitExceeded,
    MissingDependency,
    NotFound,
    Unavailable,
    error_of,
    from_triton,
)
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.repository import STREAM_SUFFIX
from backtal.segments import Segment

DEFAULT_BUNDLE = "kinetics400"
# Where the commands that call a service find its key.
KEY_VARIABLE = "BACKTAL_KEY"

# gRPC counts a message's length in 32 bits; beyond this a video has to go by URI.
MAX_VIDEO_BYTES = 2**31 - 2**20

ALWAYS = ("segments", "scores", "labels", "duration", "provenance")
WITH_CAS = ("cas", "position_seconds")
WITH_FEATURES = ("features", "clip_start_seconds", "clip_end_seconds")


@dataclass(frozen=True)
class DetectionOptions:
    """What a caller may choose; None and () leave it to the bundle.

    score_threshold: the lowest score of a segment. max_segments: how many at most.
    classes: only these. nms: segments of a class that overlap with a tIoU above it are one.
    allow_partial: answer for the part of a damaged video that could be read.
    """

    score_threshold: float | None = None
    max_segments: int | None = None
    classes: tuple[str, ...] = ()
    nms: float | None = None
    allow_partial: bool = False

    def as_parameters(self) -> dict[str, str | int | float | bool]:
        """The request parameters of the wire."""
        parameters: dict[str, str | int | float | bool] = {}
        if self.score_threshold is not None:
            parameters["score_threshold"] = float(self.score_threshold)
        if self.max_segments is not None:
            parameters["max_segments"] = int(self.max_segments)
        if self.classes:
            parameters["classes"] = json.dumps(list(self.classes))
        if self.nms is not None:
            parameters["nms"] = float(self.nms)
        if self.allow_partial:
            parameters["allow_partial"] = True
        return parameters


@dataclass(frozen=True)
class Update:
    """Where a streamed request is: the seconds done and in all; the answer comes with the last.

    segments: those that are final and were in no update before; with the answer the rest of its
    own. All updates together have every segment of the answer, and more only where the video has
    more than `max_segments`.
    """

    done_seconds: float
    total_seconds: float
    answer: DetectionAnswer | None = None
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class BundleVersion:
    """A version of a bundle as a server has it; where it is not ready, why."""

    number: int
    is_ready: bool
    problem: str = ""


@dataclass(frozen=True)
class Sources:
    """One of a video's bytes, a URI that the server may read, and features."""

    video: bytes | None = None
    uri: str | None = None
    features: FeatureSequence | None = None

    def __post_init__(self) -> None:
        given = sum(source is not None for source in (self.video, self.uri, self.features))
        if given != 1:
            raise InvalidArgument(f"give one of video, uri and features, not {given} of them")


def request_of(
    sources: Sources,
    options: DetectionOptions | None,
    *,
    with_cas: bool,
    with_features: bool,
    with_progress: bool = False,
    version: int | None = None,
) -> dict[str, Any]:
    """What `infer` of tritonclient takes beside the model's name. Raises LimitExceeded."""
    grpc = tritonclient()
    names = ALWAYS + (WITH_CAS if with_cas else ()) + (WITH_FEATURES if with_features else ())
    if with_progress:
        names += ("progress",)
    parameters = (options or DetectionOptions()).as_parameters()
    features = sources.features
    if features is not None and features.provenance.backbone_sha256:
        parameters["backbone"] = ",".join(features.provenance.backbone_sha256)
    return {
        # Empty is the newest.
        "model_version": "" if version is None else str(version),
        "inputs": _inputs(sources),
        "outputs": [grpc.InferRequestedOutput(name) for name in names],
        "parameters": parameters,
    }


class StreamReader:
    """Makes updates of a stream's responses; `latest` is the last of them."""

    def __init__(self) -> None:
        self.latest = Update(0.0, 0.0)
        self._given: set[Segment] = set()

    def read(self, result: Any) -> Update:
        """What a response of the stream tells. Raises Internal where its parts do not fit."""
        progress = result.as_numpy("progress")
        if progress is not None and progress.size == 2:
            done_seconds, total_seconds = map(float, progress)
            self.latest = Update(done_seconds, total_seconds, segments=self._new(result))
        elif result.as_numpy("segments") is None:
            self.latest = replace(self.latest, segments=())
        else:
            answer = read_answer(result)
            seconds = answer.duration_seconds
            self.latest = Update(seconds, seconds, answer, self._new(result))
        return self.latest

    def _new(self, result: Any) -> tuple[Segment, ...]:
        if result.as_numpy("segments") is None:
            return ()
        new = tuple(one for one in _read_segments(result) if one not in self._given)
        self._given.update(new)
        return new


def headers_of(key: str | None) -> dict[str, str]:
    """The metadata that shows a key."""
    return {} if key is None else {"authorization": f"Bearer {key}"}


def bundles_of(index: Any) -> tuple[str, ...]:
    """The bundles in an answer to RepositoryIndex."""
    ready = {model.name for model in index.models if model.state == "READY"}
    return tuple(sorted(name for name in ready if name + STREAM_SUFFIX in ready))


def versions_of(index: Any, bundle: str) -> tuple[BundleVersion, ...]:
    """The versions of a bundle in an answer to RepositoryIndex, rising."""
    found: dict[int, list[Any]] = {}
    for model in index.models:
        if model.name in (bundle, bundle + STREAM_SUFFIX) and model.version.isdecimal():
            found.setdefault(int(model.version), []).append(model)
    return tuple(
        BundleVersion(
            number,
            is_ready=len(models) == 2 and all(model.state == "READY" for model in models),
            problem=next((model.reason for model in models if model.reason), ""),
        )
        for number, models in sorted(found.items())
    )


def choose_bundle(names: Sequence[str]) -> str:
    """The only bundle, else `kinetics400`. Raises InvalidArgument where neither exists."""
    if len(names) == 1:
        return names[0]
    if DEFAULT_BUNDLE in names:
        return DEFAULT_BUNDLE
    raise InvalidArgument(f"name a bundle: the server has {', '.join(names) or 'none'}")


def _inputs(sources: Sources) -> list[Any]:
    video, uri, features = sources.video, sources.uri, sources.features
    if video is not None:
        if len(video) > MAX_VIDEO_BYTES:
            raise LimitExceeded(
                f"the video has {len(video)} bytes, a message holds {MAX_VIDEO_BYTES}: send its uri"
            )
        return [_input("video", np.array([video], dtype=np.object_), "BYTES")]
    if uri is not None:
        return [_input("uri", np.array([uri.encode()], dtype=np.object_), "BYTES")]
    assert features is not None
    return [
        _input("features", features.values, "FP32"),
        _input("duration", np.array([features.duration_seconds], np.float32), "FP32"),
        _input("clip_start_seconds", features.clip_start_seconds, "FP32"),
        _input("clip_end_seconds", features.clip_end_seconds, "FP32"),
    ]


def _input(name: str, values: NDArray[Any], datatype: str) -> Any:
    tensor = tritonclient().InferInput(name, list(values.shape), datatype)
    if datatype == "FP32":
        values = np.ascontiguousarray(values, dtype=np.float32)
    tensor.set_data_from_numpy(values)
    return tensor


def translate(error: Any, address: str) -> BacktalError:
    """The error that the server meant, or the nearest kind for what gRPC says."""
    text = error.message()
    meant = from_triton(text)
    if meant is not None:
        return meant
    code = (error.status() or "").removeprefix("StatusCode.")
    reason, retry_after_seconds = _details(error)
    if code == "UNAVAILABLE" and reason is None:
        return Unavailable(f"no server answers at {address}: {text}")
    if code == "NOT_FOUND" or "unknown model" in text:
        return NotFound(text)
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(f"no answer from {address} within the timeout")
    return error_of(code, reason, text, retry_after_seconds) or Internal(text)


def _details(error: Any) -> tuple[str | None, float | None]:
    """The reason and the wait that the call's `google.rpc` details name.

    tritonclient's exception does not have them: they are with the call that failed.
    """
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    call = error.__context__
    if not hasattr(call, "trailing_metadata"):
        return None, None
    packed = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    with suppress(DecodeError):
        for detail in status_pb2.Status.FromString(packed).details:
            detail.Unpack(info)
            detail.Unpack(retry)
    seconds = retry.retry_delay.ToMilliseconds() / 1000
    return info.reason or None, seconds or None


def tritonclient() -> Any:
    """The module `tritonclient.grpc`. Raises MissingDependency."""
    try:
        import tritonclient.grpc
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"a client needs {error.name}, which is not installed: pip install 'backtal[client]'"
        ) from None
    return tritonclient.grpc


def read_answer(result: Any) -> DetectionAnswer:
    """The answer in a result of tritonclient. Raises Internal where its parts do not fit."""
    raw = result.as_numpy("provenance")
    provenance = json.loads(raw.reshape(-1)[0]) if raw is not None and raw.size else {}
    duration_seconds = float(_tensor(result, "duration").reshape(-1)[0])
    return DetectionAnswer(
        segments=_read_segments(result),
        duration_seconds=duration_seconds,
        cas=result.as_numpy("cas"),
        position_seconds=result.as_numpy("position_seconds"),
        classes=tuple(provenance.get("classes", ())),
        features=_read_features(result, provenance, duration_seconds),
        provenance=provenance,
    )


def _read_segments(result: Any) -> tuple[Segment, ...]:
    labels = [label.decode() for label in _tensor(result, "labels").reshape(-1).tolist()]
    spans: Sequence[Sequence[float]] = _tensor(result, "segments").reshape(-1, 2).tolist()
    scores = _tensor(result, "scores").reshape(-1).tolist()
    if not len(labels) == len(spans) == len(scores):
        raise Internal(
            f"the server sent {len(spans)} segments, {len(scores)} scores, {len(labels)} labels"
        )
    return tuple(
        Segment(start_seconds=start, end_seconds=end, label=label, score=score)
        for (start, end), label, score in zip(spans, labels, scores, strict=True)
    )


def _read_features(
    result: Any, provenance: Mapping[str, Any], duration_seconds: float
) -> FeatureSequence | None:
    values = result.as_numpy("features")
    if values is None or not values.size:
        return None
    return FeatureSequence(
        values=values,
        clip_start_seconds=_tensor(result, "clip_start_seconds"),
        clip_end_seconds=_tensor(result, "clip_end_seconds"),
        duration_seconds=duration_seconds,
        num_frames_decoded=int(provenance.get("num_frames_decoded", 0)),
        streams=tuple(provenance.get("streams", ("rgb",))),
        provenance=FeatureProvenance.model_validate(provenance.get("features", {})),
    )


def _tensor(result: Any, name: str) -> NDArray[Any]:
    values: NDArray[Any] | None = result.as_numpy(name)
    if values is None:
        raise Internal(f"the server sent no output {name}")
    return values
