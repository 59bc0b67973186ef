"""A client of the service: `Client(address).detect(...)` over KServe v2 by gRPC.

tritonclient is imported when a client is made, so that importing this module costs nothing. The
tensors are DESIGN's table, "The wire"; errors come back as the kinds of `backtal.errors`.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
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
    from_triton,
    from_wire,
)
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.segments import Segment

DEFAULT_BUNDLE = "kinetics400"
STREAM_SUFFIX = "_stream"

# gRPC counts a message's length in 32 bits; beyond this a video has to go by URI.
MAX_VIDEO_BYTES = 2**31 - 2**20

_ALWAYS = ("segments", "scores", "labels", "duration", "provenance")
_WITH_CAS = ("cas", "position_seconds")
_WITH_FEATURES = ("features", "clip_start_seconds", "clip_end_seconds")


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


class Client:
    """A connection to one server. Use it as a context manager, or `close` it.

    `timeout_seconds` bounds each call that names none of its own; None waits for ever.
    Calls raise the kinds of `backtal.errors`; Unavailable where no server answers.
    """

    def __init__(self, address: str, *, timeout_seconds: float | None = None) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._grpc = _tritonclient()
        self._client = self._grpc.InferenceServerClient(address)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def is_ready(self) -> bool:
        """Whether the server answers that it is ready."""
        try:
            return bool(self._client.is_server_ready(client_timeout=2.0))
        except self._grpc.InferenceServerException:
            return False

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait for the server. Raises Unavailable after `timeout_seconds`."""
        deadline = time.monotonic() + timeout_seconds
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise Unavailable(f"no server is ready at {self.address}")
            time.sleep(0.1)

    def bundles(self) -> tuple[str, ...]:
        """The names of the bundles that the server has ready."""
        try:
            index = self._client.get_model_repository_index(client_timeout=self._timeout_seconds)
        except self._grpc.InferenceServerException as error:
            raise self._translate(error) from None
        ready = {model.name for model in index.models if model.state == "READY"}
        return tuple(sorted(name for name in ready if name + STREAM_SUFFIX in ready))

    def default_bundle(self) -> str:
        """The only bundle, else `kinetics400`. Raises InvalidArgument where neither exists."""
        names = self.bundles()
        if len(names) == 1:
            return names[0]
        if DEFAULT_BUNDLE in names:
            return DEFAULT_BUNDLE
        raise InvalidArgument(f"name a bundle: the server has {', '.join(names) or 'none'}")

    def detect(
        self,
        *,
        video: bytes | None = None,
        uri: str | None = None,
        features: FeatureSequence | None = None,
        bundle: str | None = None,
        options: DetectionOptions | None = None,
        with_cas: bool = False,
        with_features: bool = False,
        on_progress: Callable[[float, float], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> DetectionAnswer:
        """Find the actions of one video: its bytes, a URI that the server may read, or features.

        `on_progress` is called with the seconds done and the seconds in all; it takes the
        bundle's stream model. `bundle` None is `default_bundle()`.
        """
        name = bundle or self.default_bundle()
        outputs = _ALWAYS + (_WITH_CAS if with_cas else ())
        outputs += _WITH_FEATURES if with_features else ()
        parameters = (options or DetectionOptions()).as_parameters()
        if features is not None and features.provenance.backbone_sha256:
            parameters["backbone"] = ",".join(features.provenance.backbone_sha256)
        request = {
            "inputs": self._inputs(video, uri, features),
            "outputs": [self._grpc.InferRequestedOutput(output) for output in outputs],
            "parameters": parameters,
        }
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        if on_progress is not None:
            return self._detect_stream(name, request, on_progress, timeout)
        try:
            result = self._client.infer(name, client_timeout=timeout, **request)
        except self._grpc.InferenceServerException as error:
            raise self._translate(error) from None
        return _read_answer(result)

    def _detect_stream(
        self,
        bundle: str,
        request: Mapping[str, Any],
        on_progress: Callable[[float, float], None],
        timeout_seconds: float | None,
    ) -> DetectionAnswer:
        arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client.start_stream(
            callback=lambda result, error: arrived.put((result, error)),
            stream_timeout=timeout_seconds,
        )
        finished = False
        request = {**request, "outputs": [*request["outputs"], self._progress_output()]}
        try:
            self._client.async_stream_infer(bundle + STREAM_SUFFIX, **request)
            while True:
                result, error = _next(arrived, timeout_seconds)
                if error is not None:
                    raise self._translate(error) from None
                progress = result.as_numpy("progress")
                if progress is not None and progress.size == 2:
                    on_progress(float(progress[0]), float(progress[1]))
                if result.as_numpy("segments") is not None:
                    finished = True
                    return _read_answer(result)
        finally:
            self._client.stop_stream(cancel_requests=not finished)

    def _progress_output(self) -> Any:
        return self._grpc.InferRequestedOutput("progress")

    def _inputs(
        self, video: bytes | None, uri: str | None, features: FeatureSequence | None
    ) -> list[Any]:
        given = sum(source is not None for source in (video, uri, features))
        if given != 1:
            raise InvalidArgument(f"give one of video, uri and features, not {given} of them")
        if video is not None:
            if len(video) > MAX_VIDEO_BYTES:
                raise LimitExceeded(
                    f"the video has {len(video)} bytes, a message holds {MAX_VIDEO_BYTES}: "
                    "send its uri"
                )
            return [self._input("video", np.array([video], dtype=np.object_), "BYTES")]
        if uri is not None:
            return [self._input("uri", np.array([uri.encode()], dtype=np.object_), "BYTES")]
        assert features is not None
        return [
            self._input("features", features.values, "FP32"),
            self._input("duration", np.array([features.duration_seconds], np.float32), "FP32"),
            self._input("clip_start_seconds", features.clip_start_seconds, "FP32"),
            self._input("clip_end_seconds", features.clip_end_seconds, "FP32"),
        ]

    def _input(self, name: str, values: NDArray[Any], datatype: str) -> Any:
        tensor = self._grpc.InferInput(name, list(values.shape), datatype)
        if datatype == "FP32":
            values = np.ascontiguousarray(values, dtype=np.float32)
        tensor.set_data_from_numpy(values)
        return tensor

    def _translate(self, error: Any) -> BacktalError:
        """The error that the server meant, or the nearest kind for what gRPC says."""
        text = error.message()
        meant = from_triton(text)
        if meant is not None:
            return meant
        code = (error.status() or "").removeprefix("StatusCode.")
        if code == "UNAVAILABLE":
            return Unavailable(f"no server answers at {self.address}: {text}")
        if code == "NOT_FOUND" or "unknown model" in text:
            return NotFound(text)
        if code == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"no answer from {self.address} within the timeout")
        return from_wire(f"[{code}] {text}") or Internal(text)


def _tritonclient() -> Any:
    try:
        import tritonclient.grpc
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"a client needs {error.name}, which is not installed: pip install 'backtal[client]'"
        ) from None
    return tritonclient.grpc


def _next(arrived: queue.Queue[tuple[Any, Any]], timeout_seconds: float | None) -> tuple[Any, Any]:
    # The stream's own timeout reports itself; this one is for a server that is not there to.
    limit = None if timeout_seconds is None else timeout_seconds + 5.0
    try:
        return arrived.get(timeout=limit)
    except queue.Empty:
        raise DeadlineExceeded(f"no answer within {timeout_seconds:g} s") from None


def _read_answer(result: Any) -> DetectionAnswer:
    labels = [label.decode() for label in _tensor(result, "labels").reshape(-1).tolist()]
    spans: Sequence[Sequence[float]] = _tensor(result, "segments").reshape(-1, 2).tolist()
    scores = _tensor(result, "scores").reshape(-1).tolist()
    if not len(labels) == len(spans) == len(scores):
        raise Internal(
            f"the server sent {len(spans)} segments, {len(scores)} scores, {len(labels)} labels"
        )
    raw = result.as_numpy("provenance")
    provenance = json.loads(raw.reshape(-1)[0]) if raw is not None and raw.size else {}
    duration_seconds = float(_tensor(result, "duration").reshape(-1)[0])
    return DetectionAnswer(
        segments=tuple(
            Segment(start_seconds=start, end_seconds=end, label=label, score=score)
            for (start, end), label, score in zip(spans, labels, scores, strict=True)
        ),
        duration_seconds=duration_seconds,
        cas=result.as_numpy("cas"),
        position_seconds=result.as_numpy("position_seconds"),
        classes=tuple(provenance.get("classes", ())),
        features=_read_features(result, provenance, duration_seconds),
        provenance=provenance,
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
