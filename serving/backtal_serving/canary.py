"""A small request of our own to each bundle: Triton calls a model ready whose process is dead."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from backtal.client import STREAM_SUFFIX
from backtal.errors import from_wire
from backtal.manifest import MANIFEST_NAME, Manifest
from backtal_serving.handover import CANARY_PARAMETER
from backtal_serving.metrics.supervision import SupervisionMetrics

REQUEST_ID = "canary"
# Of features: as few as make an answer.
NUM_CLIPS = 2
# How a server that is only busy answers.
_BUSY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class Canary:
    """Asks every bundle of a repository for the segments of two clips of nothing."""

    def __init__(
        self,
        repository: Path,
        timeout_seconds: float,
        metrics: SupervisionMetrics | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics or SupervisionMetrics()
        self._feature_dims = {
            path.parent.parent.name: Manifest.load(path).description.feature_dim
            for path in sorted(repository.glob(f"*/1/{MANIFEST_NAME}"))
            if not path.parent.parent.name.endswith(STREAM_SUFFIX)
        }

    @property
    def bundles(self) -> tuple[str, ...]:
        """The bundles that are asked."""
        return tuple(self._feature_dims)

    def problem(self, address: str) -> str | None:
        """Why the server at `address` does not work; None where it does, or is only busy.

        An answer "queue full" is a sign of life, and so is none in time, as long as the server
        itself says that it lives: its models may all be at work on hours of video.
        """
        from tritonclient.grpc import InferenceServerClient

        with InferenceServerClient(address) as client:
            problems = (self._problem_of(client, bundle) for bundle in self._feature_dims)
            return next((problem for problem in problems if problem is not None), None)

    def _problem_of(self, client: Any, bundle: str) -> str | None:
        from tritonclient.grpc import InferenceServerException

        started = time.monotonic()
        try:
            self._ask(client, bundle)
        except InferenceServerException as error:
            problem = self._meaning(client, bundle, error)
            if problem is not None:
                self._metrics.canary_failed(bundle)
            return problem
        self._metrics.canary_answered(bundle, time.monotonic() - started)
        return None

    def _meaning(self, client: Any, bundle: str, error: Any) -> str | None:
        code = str(error.status()).removeprefix("StatusCode.")
        if from_wire(error.message()) is None and code not in _BUSY:
            return f"{bundle}: {code}: {error.message()}"
        return None if self._is_live(client) else "the server does not answer"

    def _ask(self, client: Any, bundle: str) -> None:
        from tritonclient.grpc import InferInput, InferRequestedOutput

        features = np.zeros((self._feature_dims[bundle], NUM_CLIPS), np.float32)
        inputs = []
        for name, value in (("features", features), ("duration", np.ones(1, np.float32))):
            tensor = InferInput(name, list(value.shape), "FP32")
            tensor.set_data_from_numpy(value)
            inputs.append(tensor)
        client.infer(
            bundle,
            inputs,
            outputs=[InferRequestedOutput("duration")],
            request_id=REQUEST_ID,
            parameters={CANARY_PARAMETER: True},
            client_timeout=self._timeout_seconds,
        )

    def _is_live(self, client: Any) -> bool:
        from tritonclient.grpc import InferenceServerException

        try:
            return bool(client.is_server_live(client_timeout=self._timeout_seconds))
        except InferenceServerException:
            return False
