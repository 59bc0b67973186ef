"""A client of `/v1`: a video of any size, streamed from its file, by HTTP.

httpx is imported when a client is made, so that importing this module costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from backtal.client_wire import DetectionOptions, RetryPolicy, headers_of
from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    DeadlineExceeded,
    Internal,
    MissingDependency,
    NotFound,
    Unavailable,
    from_wire,
)
from backtal.segments import Segment
from backtal.tracing import traced_call

PIECE_BYTES = 1 << 20


class HttpClient:
    """A connection to the HTTP side of a front door, such as ``http://127.0.0.1:8000``.

    `key`, `timeout_seconds` and `retries` are as in `backtal.client.Client`; a timeout is one
    of the whole request, the upload included.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError:
            raise MissingDependency(
                "an HTTP client needs httpx, which is not installed: pip install 'backtal[client]'"
            ) from None
        self.url = url
        self._timeout_seconds = timeout_seconds
        self._retries = retries or RetryPolicy()
        self._httpx = httpx
        self._client = httpx.Client(base_url=url, headers=headers_of(key), timeout=None)

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
        options: DetectionOptions | None = None,
        with_cas: bool = False,
    ) -> DetectionAnswer:
        """Find the actions of a file, of which a piece at a time is in memory.

        Raises NotFound for a file that is not there, and the kinds of `backtal.errors`.
        """
        query = _query(bundle, options or DetectionOptions(), with_cas)
        limit = self._timeout_seconds
        deadline = None if limit is None else time.monotonic() + limit
        num_tried = 0
        while True:
            num_tried += 1
            left_seconds = None if deadline is None else deadline - time.monotonic()
            outcome = self._try(video, query, left_seconds)
            if isinstance(outcome, DetectionAnswer):
                return outcome
            left_seconds = None if deadline is None else deadline - time.monotonic()
            delay = self._retries.delay_seconds(outcome, num_tried, left_seconds)
            if delay is None:
                raise outcome
            time.sleep(delay)

    def _try(
        self, video: Path, query: Mapping[str, Any], left_seconds: float | None
    ) -> DetectionAnswer | BacktalError:
        try:
            with traced_call(self._client.base_url.host) as trace:
                return self._ask(video, query, left_seconds, trace)
        except self._httpx.TimeoutException:
            return DeadlineExceeded(f"no answer from {self.url} within the timeout")
        except self._httpx.TransportError as error:
            return Unavailable(f"no server answers at {self.url}: {error}")
        except BacktalError as error:
            return error

    def _ask(
        self,
        video: Path,
        query: Mapping[str, Any],
        left_seconds: float | None,
        trace: Mapping[str, str],
    ) -> DetectionAnswer:
        headers = {"content-type": "application/octet-stream", "accept": "application/json"}
        wanted = dict(query) if left_seconds is None else {**query, "timeout_seconds": left_seconds}
        response = self._client.post(
            "/v1/detect",
            params=wanted,
            content=_pieces(video),
            headers={**headers, **trace, "content-length": str(_num_bytes(video))},
            timeout=left_seconds,
        )
        if response.status_code != 200:
            raise _problem(response)
        return _answer(response.json())


def _query(bundle: str | None, options: DetectionOptions, with_cas: bool) -> dict[str, Any]:
    query: dict[str, Any] = {**options.as_parameters()}
    if options.classes:
        query["classes"] = list(options.classes)
    if bundle is not None:
        query["bundle"] = bundle
    if with_cas:
        query["include"] = "cas"
    return query


def _num_bytes(video: Path) -> int:
    try:
        return video.stat().st_size
    except OSError as error:
        raise NotFound(f"{video} cannot be read: {error.strerror}") from None


def _pieces(video: Path) -> Iterator[bytes]:
    with video.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _problem(response: Any) -> BacktalError:
    try:
        problem = response.json()
        retry = problem.get("retry_after_seconds")
        code = problem["code"] if retry is None else f"{problem['code']};retry={retry:g}"
        error = from_wire(f"[{code}] {problem['detail']}")
    except (ValueError, KeyError, AttributeError):
        error = None
    return error or Internal(f"HTTP {response.status_code}: {response.text[:200]}")


def _answer(body: Mapping[str, Any]) -> DetectionAnswer:
    cas, positions = body.get("cas"), body.get("position_seconds")
    return DetectionAnswer(
        segments=tuple(Segment(**segment) for segment in body["segments"]),
        duration_seconds=body["duration_seconds"],
        cas=None if cas is None else np.array(cas, np.float32),
        position_seconds=None if positions is None else np.array(positions, np.float32),
        classes=tuple(body["provenance"].get("classes", ())),
        provenance=body["provenance"],
    )
