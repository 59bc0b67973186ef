"""Load and unload models of a running Triton: for the process that alone reaches its socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backtal.errors import DeadlineExceeded, Unavailable
from backtal_serving.processes import Stub

# Triton's own word for a model's version that answers.
READY = "READY"


class ModelControl:
    """The calls of one Triton at `address`.

    Each raises Unavailable with what Triton said, DeadlineExceeded where it said nothing in time.
    """

    def __init__(self, address: str, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds

    def load(self, model: str) -> None:
        """Load the versions that are there; those that are loaded and stay go on meanwhile.

        When all of them are ready the newest answers, and versions that are there no more end
        with their last request. If one does not load, everything stays as it was.
        """
        with self._client(f"{model} cannot be loaded") as client:
            client.load_model(model, client_timeout=self._timeout_seconds)

    def unload(self, model: str) -> None:
        """Take a model away; its requests in flight are answered."""
        with self._client(f"{model} cannot be unloaded") as client:
            client.unload_model(model, client_timeout=self._timeout_seconds)

    def ready(self) -> frozenset[Stub]:
        """The models' versions that are ready."""
        with self._client("the models cannot be listed") as client:
            index = client.get_model_repository_index(client_timeout=self._timeout_seconds)
        return frozenset(
            Stub(model.name, int(model.version)) for model in index.models if model.state == READY
        )

    def instances(self) -> Counter[Stub]:
        """How many instances each version has that is ready; here each is a process."""
        found: Counter[Stub] = Counter()
        for stub in self.ready():
            with self._client(f"the configuration of {stub.model} cannot be read") as client:
                config = client.get_model_config(
                    stub.model, str(stub.version), client_timeout=self._timeout_seconds
                ).config
            found[stub] = sum(group.count for group in config.instance_group)
        return found

    @contextmanager
    def _client(self, problem: str) -> Iterator[Any]:
        from tritonclient.grpc import InferenceServerClient, InferenceServerException

        with InferenceServerClient(self._address) as client:
            try:
                yield client
            except InferenceServerException as error:
                if "DEADLINE_EXCEEDED" in str(error.status()):
                    seconds = f"{self._timeout_seconds:g} s"
                    raise DeadlineExceeded(f"{problem}: no answer within {seconds}") from None
                raise Unavailable(f"{problem}: {error.message()}") from None
