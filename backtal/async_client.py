"""The client for asyncio: `backtal.client.Client`, with `await`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from backtal.client_wire import (
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
)
from backtal.detection import DetectionAnswer
from backtal.errors import BacktalError, Internal
from backtal.features import FeatureSequence
from backtal.patience import Patience, RetryPolicy
from backtal.repository import STREAM_SUFFIX
from backtal.tracing import traced_call

Result = TypeVar("Result")


class AsyncClient:
    """A connection to one server, of one event loop; see `backtal.client.Client`."""

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
        self._exception = tritonclient().InferenceServerException
        from tritonclient.grpc.aio import InferenceServerClient

        self.address = address
        self._timeout_seconds = timeout_seconds
        self._retries = retries or RetryPolicy()
        self._headers = headers_of(key)
        self._client = InferenceServerClient(address, ssl=ssl, root_certificates=root_certificates)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def bundles(self) -> tuple[str, ...]:
        """The names of the bundles that the server has ready."""

        async def ask(left_seconds: float | None) -> tuple[str, ...]:
            index = await self._client.get_model_repository_index(
                headers=self._headers, client_timeout=left_seconds
            )
            return bundles_of(index)

        return await self._patiently(ask, None)

    async def default_bundle(self) -> str:
        """The only bundle, else `kinetics400`. Raises InvalidArgument where neither exists."""
        return choose_bundle(await self.bundles())

    async def detect(
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
    ) -> DetectionAnswer:
        """Find the actions of one video; see `Client.detect`."""
        request = request_of(
            Sources(video, uri, features),
            options,
            version=version,
            with_cas=with_cas,
            with_features=with_features,
        )
        name = bundle or await self.default_bundle()

        async def ask(left_seconds: float | None) -> DetectionAnswer:
            with traced_call(self.address, self._headers) as headers:
                result = await self._client.infer(
                    name, client_timeout=left_seconds, headers=headers, **request
                )
            return read_answer(result)

        return await self._patiently(ask, timeout_seconds)

    async def stream(
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
    ) -> AsyncIterator[Update]:
        """Each `Update` as it comes; see `Client.stream`."""
        request = request_of(
            Sources(video, uri, features),
            options,
            version=version,
            with_cas=with_cas,
            with_features=with_features,
            with_progress=True,
        )
        name = bundle or await self.default_bundle()

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": name + STREAM_SUFFIX, **request}

        reader = StreamReader()
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        with traced_call(self.address, self._headers) as headers:
            responses = self._client.stream_infer(requests(), stream_timeout=limit, headers=headers)
            try:
                async for result, error in responses:
                    if error is not None:
                        raise translate(error, self.address) from None
                    yield reader.read(result)
            except self._exception as error:
                raise translate(error, self.address) from None
        if reader.latest.answer is None:
            raise Internal("the stream ended without an answer")

    async def _patiently(
        self, ask: Callable[[float | None], Awaitable[Result]], timeout_seconds: float | None
    ) -> Result:
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        patience = Patience(self._retries, limit)
        while True:
            try:
                return await ask(patience.left_seconds)
            except self._exception as error:
                failed = translate(error, self.address)
            except BacktalError as error:
                failed = error
            await asyncio.sleep(patience.delay_after(failed))
