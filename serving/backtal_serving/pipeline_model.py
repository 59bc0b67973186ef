"""The public model of a bundle inside Triton: video, URI or features in, timed segments out.

A bundle's ``model.py`` imports `TritonPythonModel` from here. The networks are inner models,
reached by Triton's own calls between models (BLS); all else is `backtal.pipeline`.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from backtal.errors import (
    BacktalError,
    Cancelled,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    from_triton,
    to_wire,
)
from backtal.feature_store import open_store
from backtal.flow import plan_flow_fields
from backtal.manifest import MANIFEST_NAME, Manifest
from backtal.pipeline import Answer, CasOutput, Pipeline, Progress, Request
from backtal.run_control import StageTime
from backtal.stages import Clips
from backtal.video.sandbox import DecoderPool
from backtal_serving import handover, wire
from backtal_serving.drain import request_in_flight
from backtal_serving.handover import HandedOver
from backtal_serving.logs import log_as_json
from backtal_serving.metrics.observations import Observation, of_answer, of_failure, of_store
from backtal_serving.metrics.triton import TritonMetrics
from backtal_serving.model_process import end_process
from backtal_serving.numpy_version import check_numpy
from backtal_serving.request_log import RequestLog, logged_request
from backtal_serving.settings import ServingSettings
from backtal_serving.tracing.tracer import Span, Tracer, make_tracer

# The nearest code that Triton has; the message carries the true one. By name: Triton adds its
# classes to pb_utils only after this module is imported.
_TRITON_CODES = (
    (InvalidArgument, "INVALID_ARG"),
    (NotFound, "NOT_FOUND"),
    (PermissionDenied, "INVALID_ARG"),
    (Unavailable, "UNAVAILABLE"),
    (Cancelled, "CANCELLED"),
)


class InnerModels:
    """The pipeline's `Stages`, answered by the other models of this Triton."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def flow_fields(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames [m + 1, 224, 224, 3] to the flow between them, by OpenCV in this process."""
        return plan_flow_fields(frames, self._manifest.description.clip_plan)

    def features(self, stream: str, clips: Clips) -> NDArray[np.float32]:
        """Clips to features [n, D] by the stream's backbone."""
        model = self._manifest.backbones[stream].model  # type: ignore[index]
        return _call(model, {"clips": clips}, ["features"])["features"]

    def cas(self, features: NDArray[np.float32]) -> CasOutput:
        """Features [B, D, L] to the raw CAS [B, C(+1), L] and, where there is one, magnitude."""
        names = ["cas", "magnitude"] if self._manifest.description.cas.magnitude else ["cas"]
        outputs = _call(self._manifest.cas.model, {"features": features}, names)
        return CasOutput(cas=outputs["cas"], magnitude=outputs.get("magnitude"))


class TritonPythonModel:
    """One instance of a bundle; instances of one model run side by side."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest beside model.py and the launcher's settings."""
        check_numpy()
        log_as_json(logging.WARNING)
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        self._settings = ServingSettings.from_environment()
        self._manifest = Manifest.load(folder / MANIFEST_NAME)
        limits = self._settings.limits
        self._pool = DecoderPool(limits.decode)
        # Where the kernel refuses the lockdown, the model does not load and says why.
        self._pool.start()
        self._tracer = make_tracer(self._settings.tracing, "pipeline")
        bundle = self._manifest.description.name
        self._metrics = TritonMetrics(bundle) if self._settings.metrics else None
        kept = self._settings.feature_store
        self._store = None if kept is None else open_store(kept)
        self._pipeline = Pipeline(
            self._manifest,
            InnerModels(self._manifest),
            limits.video,
            pool=self._pool,
            store=self._store,
        )
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(config)

    def finalize(self) -> None:
        """End the decoders, and this process."""
        self._pool.close()
        self._tracer.close()
        end_process()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer each request: as the return value, or through its sender where decoupled."""
        if not self._decoupled:
            return [self._respond(request) for request in requests]
        for request in requests:
            self._stream(request)
        return None

    def _respond(self, request: Any) -> Any:
        try:
            answer = self._run(request)
            return _response(wire.encode(answer, self._manifest, request.requested_output_names()))
        except Exception as error:
            return _error_response(error)

    def _stream(self, request: Any) -> None:
        sender = request.get_response_sender()
        requested = request.requested_output_names()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

        def send_progress(progress: Progress) -> None:
            if "progress" in requested and not request.is_cancelled():
                sender.send(_response(wire.encode_progress(progress, requested)))

        try:
            answer = self._run(request, send_progress)
            response = _response(wire.encode(answer, self._manifest, requested))
        except Exception as error:
            response = _error_response(error)
        sender.send(response, flags=final)

    def _run(self, request: Any, on_progress: Any = None) -> Answer:
        bundle = self._manifest.description.name
        with logged_request(request.request_id(), bundle) as log:
            with request_in_flight(self._settings.state_folder):
                answer = self._answer(request, log, on_progress)
            log.answered(answer)
        return answer

    def _answer(self, request: Any, log: RequestLog, on_progress: Any) -> Answer:
        parameters = json.loads(request.parameters() or "{}")
        handed, parameters = handover.take(parameters, self._settings.spool_folder)
        log.is_canary = handed.is_canary
        log.belongs_to(handed.trace)
        decoded = self._decode(request, parameters, handed)
        stages: dict[str, StageTime] = {}
        with self._traced(handed, stages) as span:
            try:
                answer = self._pipeline.run(
                    decoded,
                    is_cancelled=request.is_cancelled,
                    max_seconds=self._settings.limits.requests.max_seconds,
                    stages=stages,
                    keep=wire.kept(request.requested_output_names()),
                    **({} if on_progress is None else {"on_progress": on_progress}),
                )
            except BacktalError as error:
                self._count(of_failure(error, decoded))
                raise
            span.tell(video_seconds=answer.duration_seconds, num_segments=len(answer.segments))
        if not handed.is_canary:
            self._count(of_answer(answer, decoded, self._manifest.description))
        return answer

    @contextmanager
    def _traced(self, handed: HandedOver, stages: Mapping[str, StageTime]) -> Iterator[Span]:
        """A span of the run, and one of each stage in the order in which they began."""
        tracer = Tracer() if handed.is_canary else self._tracer
        bundle = self._manifest.description.name
        with tracer.span("pipeline", handed.trace, kind="server", bundle=bundle) as span:
            try:
                yield span
            finally:
                parts = {name: spent for name, spent in stages.items() if name != "total"}
                for name in sorted(parts, key=lambda name: parts[name].started):
                    tracer.record(name, span.context, parts[name])

    def _decode(self, request: Any, parameters: Mapping[str, Any], handed: HandedOver) -> Request:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        roots, remote = handed.reach(self._settings)
        return wire.decode(
            tensors, parameters, self._manifest, roots, remote=remote, spooled=handed.spooled
        )

    def _count(self, observations: Iterable[Observation]) -> None:
        if self._metrics is not None:
            self._metrics.record([*observations, *of_store(self._store)], self._pool.num_deaths)


def _call(
    model: str, inputs: Mapping[str, NDArray[Any]], outputs: list[str]
) -> dict[str, NDArray[Any]]:
    """Run an inner model. Its errors come back as INTERNAL, with the true code in the message."""
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=outputs,
        inputs=[
            pb_utils.Tensor(name, np.ascontiguousarray(values)) for name, values in inputs.items()
        ],
        # Without this, a network on a GPU leaves its answer there, where NumPy cannot read it.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    )
    response = request.exec()
    if response.has_error():
        text = response.error().message()
        raise from_triton(text) or Internal(f"{model}: {text}")
    tensors = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
    return {name: tensors[name] for name in outputs}


def _response(tensors: Mapping[str, NDArray[Any]]) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor(name, values) for name, values in tensors.items()]
    )


def _error_response(error: Exception) -> Any:
    """The answer to a request that failed: a bug of ours is told in the log and only there."""
    if not isinstance(error, BacktalError) or type(error) is Internal:
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        error = Internal("a bug of the server; its log says more")
    name = next((name for kind, name in _TRITON_CODES if isinstance(error, kind)), "INTERNAL")
    code = getattr(pb_utils.TritonError, name)
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(to_wire(error), code))
