"""The public model of a bundle inside Triton: video, URI or features in, timed segments out.

A bundle's ``model.py`` imports `TritonPythonModel` from here. The networks are inner models,
reached by Triton's own calls between models (BLS); all else is `backtal.pipeline`.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
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
from backtal.feature_store import FeatureStore
from backtal.flow import plan_flow_fields
from backtal.manifest import MANIFEST_NAME, Manifest
from backtal.pipeline import Answer, CasOutput, Pipeline, Progress
from backtal.stages import Clips
from backtal.video.sandbox import DecoderPool
from backtal_serving import handover, wire
from backtal_serving.drain import request_in_flight
from backtal_serving.model_process import end_process
from backtal_serving.numpy_version import check_numpy
from backtal_serving.request_log import logged_request
from backtal_serving.settings import ServingSettings

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
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        self._settings = ServingSettings.from_environment()
        self._manifest = Manifest.load(folder / MANIFEST_NAME)
        limits = self._settings.limits
        self._pool = DecoderPool(limits.decode)
        # Where the kernel refuses the lockdown, the model does not load and says why.
        self._pool.start()
        kept = self._settings.feature_store
        self._pipeline = Pipeline(
            self._manifest,
            InnerModels(self._manifest),
            limits.video,
            pool=self._pool,
            store=None if kept is None else FeatureStore(kept),
        )
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(config)

    def finalize(self) -> None:
        """End the decoders, and this process."""
        self._pool.close()
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
                answer = self._answer(request, on_progress)
            log.answered(answer)
        return answer

    def _answer(self, request: Any, on_progress: Any) -> Answer:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        parameters = json.loads(request.parameters() or "{}")
        settings = self._settings
        handed, parameters = handover.take(parameters, settings.spool_folder)
        roots, remote = handed.reach(settings)
        decoded = wire.decode(
            tensors, parameters, self._manifest, roots, remote=remote, spooled=handed.spooled
        )
        # Large videos: the pipeline has its own copy, spooled.
        del tensors
        progress = {} if on_progress is None else {"on_progress": on_progress}
        return self._pipeline.run(
            decoded,
            is_cancelled=request.is_cancelled,
            max_seconds=settings.limits.requests.max_seconds,
            keep=wire.kept(request.requested_output_names()),
            **progress,
        )


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
