"""A small request of our own to each bundle: Triton calls a model ready whose process is dead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtal.errors import Unavailable, from_wire
from backtal_serving.handover import CANARY_PARAMETER
from backtal_serving.metrics.supervision import SupervisionMetrics

REQUEST_ID = "canary"
# Of features: as few as make an answer.
NUM_CLIPS = 2
# How a server that is only busy answers.
_BUSY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class Canary:
    """Asks bundles for the segments of two clips of nothing."""

    def __init__(self, timeout_seconds: float, metrics: SupervisionMetrics | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics or SupervisionMetrics()

    def problem(self, address: str, feature_dims: Mapping[str, int]) -> str | None:
        """Why the server at `address` does not work; None where it does, or is only busy.

        feature_dims: D of each bundle that is asked. An answer "queue full" is a sign of life, and
        so is none in time, as long as the server itself says that it lives: its models may all be
        at work on hours of video.
        """
        from tritonclient.grpc import InferenceServerClient

        with InferenceServerClient(address) as client:
            problems = (self._problem_of(client, *bundle) for bundle in feature_dims.items())
            return next((problem for problem in problems if problem is not None), None)

    def _problem_of(self, client: Any, bundle: str, feature_dim: int) -> str | None:
        from tritonclient.grpc import InferenceServerException

        started = time.monotonic()
        try:
            _ask(client, bundle, feature_dim, self._timeout_seconds)
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

    def _is_live(self, client: Any) -> bool:
        from tritonclient.grpc import InferenceServerException

        try:
            return bool(client.is_server_live(client_timeout=self._timeout_seconds))
        except InferenceServerException:
            return False


def try_model(address: str, model: str, feature_dim: int, timeout_seconds: float) -> None:
    """Ask a model that has nothing else to do. Raises Unavailable where it gives no answer."""
    from tritonclient.grpc import InferenceServerClient, InferenceServerException

    with InferenceServerClient(address) as client:
        try:
            _ask(client, model, feature_dim, timeout_seconds)
        except InferenceServerException as error:
            raise Unavailable(f"{model} does not answer: {error.message()}") from None


def _ask(client: Any, model: str, feature_dim: int, timeout_seconds: float) -> None:
    from tritonclient.grpc import InferInput, InferRequestedOutput

    features = np.zeros((feature_dim, NUM_CLIPS), np.float32)
    inputs = []
    for name, value in (("features", features), ("duration", np.ones(1, np.float32))):
        tensor = InferInput(name, list(value.shape), "FP32")
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    client.infer(
        model,
        inputs,
        outputs=[InferRequestedOutput("duration")],
        request_id=REQUEST_ID,
        parameters={CANARY_PARAMETER: True},
        client_timeout=timeout_seconds,
    )
