"""Clients of the service: `Client(address).detect(...)` over KServe v2 by gRPC.

tritonclient is imported when a client is made, so that importing this module costs nothing.
`backtal.async_client` has the same for asyncio.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from backtal.client_wire import (
    DEFAULT_BUNDLE,
    BundleVersion,
    DetectionOptions,
    Sources,
    StreamReader,
    Update,
    bundles_of,
    choose_bundle,
    headers_of,
    read_answer,
    request_of,
    translate,
    tritonclient,
    versions_of,
)
from backtal.detection import DetectionAnswer
from backtal.errors import BacktalError, DeadlineExceeded, Unavailable
from backtal.features import FeatureSequence
from backtal.patience import NO_RETRIES, Patience, RetryPolicy
from backtal.repository import STREAM_SUFFIX
from backtal.tracing import traced_call

__all__ = [
    "DEFAULT_BUNDLE",
    "NO_RETRIES",
    "STREAM_SUFFIX",
    "BundleVersion",
    "Client",
    "DetectionOptions",
    "RetryPolicy",
    "Update",
]

Result = TypeVar("Result")


class Client:
    """A connection to one server. Use it as a context manager, or `close` it.

    `key` is shown to the server with each call. `timeout_seconds` bounds each call that names
    none of its own, its retries included; None waits for ever. Calls raise the kinds of
    `backtal.errors`; Unavailable where no server answers, or none had room, after `retries`.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        retries: RetryPolicy | None = None,
        ssl: bool = False,
        root_certificates: str | None = None,
    ) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._retries = retries or RetryPolicy()
        self._headers = headers_of(key)
        self._exception = tritonclient().InferenceServerException
        self._client = tritonclient().InferenceServerClient(
            address, ssl=ssl, root_certificates=root_certificates
        )

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
        except self._exception:
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
        return bundles_of(self._index())

    def versions(self, bundle: str) -> tuple[BundleVersion, ...]:
        """The versions of a bundle, rising; those that the server refused say why."""
        return versions_of(self._index(), bundle)

    def default_bundle(self) -> str:
        """The only bundle, else `kinetics400`. Raises InvalidArgument where neither exists."""
        return choose_bundle(self.bundles())

    def bundle_sha256(self, bundle: str) -> str:
        """The hash of the bundle that answers now: from its answer to two clips of nothing.

        Raises NotFound for no such bundle.
        """

        def feature_dim(left_seconds: float | None) -> int:
            metadata = self._client.get_model_metadata(
                bundle, headers=self._headers, client_timeout=left_seconds
            )
            (shape,) = [tensor.shape for tensor in metadata.inputs if tensor.name == "features"]
            return int(shape[0])

        nothing = np.zeros((self._patiently(feature_dim, None), 2), np.float32)
        answer = self.detect(
            features=FeatureSequence.from_equal_parts(nothing, duration_seconds=1.0), bundle=bundle
        )
        return str(answer.provenance["bundle_sha256"])

    def detect(
        self,
        *,
        video: bytes | None = None,
        uri: str | None = None,
        features: FeatureSequence | None = None,
        bundle: str | None = None,
        version: int | None = None,
        options: DetectionOptions | None = None,
        with_cas: bool = False,
        with_features: bool = False,
        on_progress: Callable[[float, float], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> DetectionAnswer:
        """Find the actions of one video: its bytes, a URI that the server may read, or features.

        `on_progress` is called with the seconds done and the seconds in all; it takes the
        bundle's stream model. `bundle` None is `default_bundle()`, `version` None its newest.
        """
        sources = Sources(video, uri, features)
        name = bundle or self.default_bundle()
        wanted = {"with_cas": with_cas, "with_features": with_features}

        def ask(left_seconds: float | None) -> DetectionAnswer:
            if on_progress is None:
                request = request_of(sources, options, version=version, **wanted)
                with traced_call(self.address, self._headers) as headers:
                    result = self._client.infer(
                        name, client_timeout=left_seconds, headers=headers, **request
                    )
                return read_answer(result)
            request = request_of(sources, options, version=version, with_progress=True, **wanted)
            return self._last(self._updates(name, request, left_seconds), on_progress)

        return self._patiently(ask, timeout_seconds)

    def stream(
        self,
        *,
        video: bytes | None = None,
        uri: str | None = None,
        features: FeatureSequence | None = None,
        bundle: str | None = None,
        version: int | None = None,
        options: DetectionOptions | None = None,
        with_cas: bool = False,
        with_features: bool = False,
        timeout_seconds: float | None = None,
    ) -> Iterator[Update]:
        """As `detect`, giving each `Update` as it comes, with the segments that are final; the
        last has the answer.

        A stream that fails is not retried: its caller has seen a part of it.
        """
        request = request_of(
            Sources(video, uri, features),
            options,
            version=version,
            with_cas=with_cas,
            with_features=with_features,
            with_progress=True,
        )
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return self._updates(bundle or self.default_bundle(), request, limit)

    def _index(self) -> Any:
        def ask(left_seconds: float | None) -> Any:
            return self._client.get_model_repository_index(
                headers=self._headers, client_timeout=left_seconds
            )

        return self._patiently(ask, None)

    def _updates(
        self, bundle: str, request: dict[str, Any], timeout_seconds: float | None
    ) -> Iterator[Update]:
        with traced_call(self.address, self._headers) as headers:
            yield from self._updates_with(headers, bundle, request, timeout_seconds)

    def _updates_with(
        self,
        headers: dict[str, str],
        bundle: str,
        request: dict[str, Any],
        timeout_seconds: float | None,
    ) -> Iterator[Update]:
        arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client.start_stream(
            callback=lambda result, error: arrived.put((result, error)),
            stream_timeout=timeout_seconds,
            headers=headers,
        )
        reader = StreamReader()
        try:
            self._client.async_stream_infer(bundle + STREAM_SUFFIX, **request)
            while reader.latest.answer is None:
                result, error = _next(arrived, timeout_seconds)
                if error is not None:
                    raise translate(error, self.address) from None
                yield reader.read(result)
        finally:
            self._client.stop_stream(cancel_requests=reader.latest.answer is None)

    @staticmethod
    def _last(
        updates: Iterator[Update], on_progress: Callable[[float, float], None]
    ) -> DetectionAnswer:
        for update in updates:
            if update.answer is not None:
                return update.answer
            on_progress(update.done_seconds, update.total_seconds)
        raise AssertionError("a stream ends with an answer or an error")

    def _patiently(
        self, ask: Callable[[float | None], Result], timeout_seconds: float | None
    ) -> Result:
        """What `ask` gives, which is called with the seconds left, again as `retries` says."""
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        patience = Patience(self._retries, limit)
        while True:
            try:
                return ask(patience.left_seconds)
            except self._exception as error:
                failed = translate(error, self.address)
            except BacktalError as error:
                failed = error
            time.sleep(patience.delay_after(failed))


def _next(arrived: queue.Queue[tuple[Any, Any]], timeout_seconds: float | None) -> tuple[Any, Any]:
    # The stream's own timeout reports itself; this one is for a server that is not there to.
    limit = None if timeout_seconds is None else timeout_seconds + 5.0
    try:
        return arrived.get(timeout=limit)
    except queue.Empty:
        raise DeadlineExceeded(f"no answer within {timeout_seconds:g} s") from None
