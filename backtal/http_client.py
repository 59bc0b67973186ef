"""Clients of `/v1`: a video of any size, streamed from its file, by HTTP.

httpx is imported when a client is made, so that importing this module costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType

from backtal import http_wire
from backtal.client_wire import DetectionOptions
from backtal.detection import DetectionAnswer
from backtal.errors import BacktalError
from backtal.patience import Patience, RetryPolicy
from backtal.tracing import traced_call


class HttpClient:
    """A connection to the HTTP side of a front door, such as ``http://127.0.0.1:8000``.

    `key`, `timeout_seconds`, `retries` and `root_certificates` are as in
    `backtal.client.Client`; a timeout is one of the whole request, the upload included.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        retries: RetryPolicy | None = None,
        root_certificates: str | None = None,
    ) -> None:
        self.url = url
        self._timeout_seconds = timeout_seconds
        self._retries = retries or RetryPolicy()
        self._transport_error = http_wire.httpx().TransportError
        options = http_wire.connection(url, key, root_certificates)
        self._client = http_wire.httpx().Client(**options)

    def __enter__(self) -> HttpClient:
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

    def detect(
        self,
        video: Path,
        *,
        bundle: str | None = None,
        version: int | None = None,
        options: DetectionOptions | None = None,
        with_cas: bool = False,
    ) -> DetectionAnswer:
        """Find the actions of a file, of which a piece at a time is in memory.

        Raises NotFound for a file that is not there, and the kinds of `backtal.errors`.
        """
        query = http_wire.query_of(bundle, options, with_cas, version)
        patience = Patience(self._retries, self._timeout_seconds)
        while True:
            request = http_wire.request_for(video, query, patience.left_seconds)
            try:
                with traced_call(self._client.base_url.host, request["headers"]) as headers:
                    request["headers"] = headers
                    content = http_wire.pieces(video)
                    response = self._client.post(http_wire.PATH, content=content, **request)
                    return http_wire.read_answer(response)
            except self._transport_error as error:
                failed = http_wire.not_reached(error, self.url)
            except BacktalError as error:
                failed = error
            time.sleep(patience.delay_after(failed))


class AsyncHttpClient:
    """`HttpClient` for asyncio, of one event loop."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        retries: RetryPolicy | None = None,
        root_certificates: str | None = None,
    ) -> None:
        self.url = url
        self._timeout_seconds = timeout_seconds
        self._retries = retries or RetryPolicy()
        self._transport_error = http_wire.httpx().TransportError
        options = http_wire.connection(url, key, root_certificates)
        self._client = http_wire.httpx().AsyncClient(**options)

    async def __aenter__(self) -> AsyncHttpClient:
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
        await self._client.aclose()

    async def detect(
        self,
        video: Path,
        *,
        bundle: str | None = None,
        version: int | None = None,
        options: DetectionOptions | None = None,
        with_cas: bool = False,
    ) -> DetectionAnswer:
        """Find the actions of a file; see `HttpClient.detect`."""
        query = http_wire.query_of(bundle, options, with_cas, version)
        patience = Patience(self._retries, self._timeout_seconds)
        while True:
            request = http_wire.request_for(video, query, patience.left_seconds)
            try:
                with traced_call(self._client.base_url.host, request["headers"]) as headers:
                    request["headers"] = headers
                    content = http_wire.pieces_async(video)
                    response = await self._client.post(http_wire.PATH, content=content, **request)
                    return http_wire.read_answer(response)
            except self._transport_error as error:
                failed = http_wire.not_reached(error, self.url)
            except BacktalError as error:
                failed = error
            await asyncio.sleep(patience.delay_after(failed))
