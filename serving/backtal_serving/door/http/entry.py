"""How a request over HTTP is let in, and as what it is counted."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fastapi import Request

from backtal.errors import BacktalError
from backtal_serving.door.core import Asked, Door
from backtal_serving.door.outcomes import Entry, Outcomes

ENTRY: Entry = "http"


def let_in(
    door: Door, request: Request, *, is_detection: bool = False
) -> AbstractContextManager[Asked]:
    """`Door.request` for a request over HTTP."""
    authorization = request.headers.get("authorization")
    return door.request(ENTRY, authorization, is_detection=is_detection)


def count_refused(outcomes: Outcomes, request: Request, error: BacktalError) -> None:
    """Count a request whose form is wrong, or whose host: no route has seen it."""
    path = request.url.path
    is_detection = path == "/v1/detect" or (
        path.startswith("/v2/models/") and path.endswith("/infer")
    )
    outcomes.refused(error, ENTRY, is_detection=is_detection)
