"""What the sync and the asyncio client of `/v1` share: the request for a file, its answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtal.client_wire import DetectionOptions, headers_of
from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    DeadlineExceeded,
    Internal,
    InvalidFile,
    MissingDependency,
    NotFound,
    Unavailable,
    error_of,
)
from backtal.segments import Segment

PIECE_BYTES = 1 << 20
PATH = "/v1/detect"


def httpx() -> Any:
    """The module. Raises MissingDependency."""
    try:
        import httpx as module
    except ModuleNotFoundError:
        raise MissingDependency(
            "an HTTP client needs httpx, which is not installed: pip install 'backtal[client]'"
        ) from None
    return module


def connection(url: str, key: str | None, root_certificates: str | None) -> dict[str, Any]:
    """The arguments of httpx's clients. Raises InvalidFile."""
    return {
        "base_url": url,
        "headers": headers_of(key),
        # Each request has its own.
        "timeout": None,
        "verify": trust(root_certificates),
    }


def trust(root_certificates: str | None) -> ssl.SSLContext | bool:
    """Whom to believe: the authorities of a PEM file, else the system's. Raises InvalidFile."""
    if root_certificates is None:
        return True
    try:
        return ssl.create_default_context(cafile=root_certificates)
    except OSError as error:
        raise InvalidFile(f"root_certificates {root_certificates}: {error}") from None


def query_of(
    bundle: str | None,
    options: DetectionOptions | None,
    with_cas: bool,
    version: int | None = None,
) -> dict[str, Any]:
    """The query of a detection."""
    options = options or DetectionOptions()
    query: dict[str, Any] = {**options.as_parameters()}
    if options.classes:
        query["classes"] = list(options.classes)
    if bundle is not None:
        query["bundle"] = bundle
    if version is not None:
        query["version"] = str(version)
    if with_cas:
        query["include"] = "cas"
    return query


def request_for(
    video: Path, query: Mapping[str, Any], left_seconds: float | None
) -> dict[str, Any]:
    """The arguments of httpx's `post`, without the content. NotFound for no file."""
    headers = {
        "content-type": "application/octet-stream",
        "accept": "application/json",
        "content-length": str(_num_bytes(video)),
    }
    params = dict(query)
    if left_seconds is not None:
        params["timeout_seconds"] = left_seconds
    return {"params": params, "headers": headers, "timeout": left_seconds}


def pieces(video: Path) -> Iterator[bytes]:
    """A file, PIECE_BYTES at a time."""
    with video.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


async def pieces_async(video: Path) -> AsyncIterator[bytes]:
    """As `pieces`, read in a thread: the loop goes on while the disk is slow."""
    with video.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


def read_answer(response: Any) -> DetectionAnswer:
    """The answer in an httpx response. Raises the kind that its problem names."""
    if response.status_code != 200:
        raise _problem(response)
    body = response.json()
    cas, positions = body.get("cas"), body.get("position_seconds")
    return DetectionAnswer(
        segments=tuple(Segment(**segment) for segment in body["segments"]),
        duration_seconds=body["duration_seconds"],
        cas=None if cas is None else np.array(cas, np.float32),
        position_seconds=None if positions is None else np.array(positions, np.float32),
        classes=tuple(body["provenance"].get("classes", ())),
        provenance=body["provenance"],
    )


def not_reached(error: Exception, url: str) -> BacktalError:
    """The kind for what httpx raises where there is no response."""
    if isinstance(error, httpx().TimeoutException):
        return DeadlineExceeded(f"no answer from {url} within the timeout")
    return Unavailable(f"no server answers at {url}: {error}")


def _num_bytes(video: Path) -> int:
    try:
        return video.stat().st_size
    except OSError as error:
        raise NotFound(f"{video} cannot be read: {error.strerror}") from None


def _problem(response: Any) -> BacktalError:
    try:
        problem = response.json()
        error = error_of(
            problem["code"],
            problem.get("reason"),
            problem["detail"],
            problem.get("retry_after_seconds"),
        )
    except (ValueError, KeyError, AttributeError):
        error = None
    return error or Internal(f"HTTP {response.status_code}: {response.text[:200]}")
