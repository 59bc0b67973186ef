"""How a request over HTTP is let in, and as what it is counted."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fastapi import Request

from backtal.errors import BacktalError
from backtal_serving.door.core import Asked, Door
from backtal_serving.door.outcomes import Entry, Outcomes
from backtal_serving.tracing.context import HEADER

ENTRY: Entry = "http"


def detection(door: Door, request: Request) -> AbstractContextManager[Asked]:
    """`Door.request` for a request over HTTP."""
    headers = request.headers
    return door.request(ENTRY, headers.get("authorization"), headers.get(HEADER))


def other(door: Door, request: Request) -> AbstractContextManager[Asked]:
    """`Door.other_request` for a request over HTTP."""
    return door.other_request(ENTRY, request.headers.get("authorization"))


def count_refused(outcomes: Outcomes, request: Request, error: BacktalError) -> None:
    """Count a request whose form is wrong, or whose host: no route has seen it."""
    path = request.url.path
    is_detection = path == "/v1/detect" or (
        path.startswith("/v2/models/") and path.endswith("/infer")
    )
    outcomes.refused(error, ENTRY, is_detection=is_detection)
