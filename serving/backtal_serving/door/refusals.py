"""From errors to what a caller is told, and from Triton's errors to ours."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from backtal.errors import (
    BacktalError,
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ServiceBusy,
    from_wire,
)

A_BUG = "a bug of the server; its log says more"
DOMAIN = "backtal"
# After which Triton is back, where it was started again.
RESTART_SECONDS = 2.0
_BUSY = re.compile(r"[Ee]xceeds maximum queue size")
_RESTARTING = re.compile(r"[Ss]tub process|not healthy|Server is stopping|not ready|unloading")
_UNKNOWN = re.compile(r"unknown model|is not found|has no available versions")
# A message names what was wrong first: the field, as in `nms is 2`, `video has no stream`.
_FIELD = re.compile(
    r"(?:unknown parameter '(?P<unknown>\w+)'|(?P<field>video|uri|features|duration|score_threshold"
    r"|max_segments|classes|nms|allow_partial|backbone|clip_start_seconds|clip_end_seconds)\b)"
)

_log = logging.getLogger(__name__)


def from_triton(error: Any) -> BacktalError:
    """The error that a failed call to Triton means: an `AioRpcError` of the private channel."""
    text = error.details() or ""
    return _meant(text, error.code())


def from_triton_text(text: str) -> BacktalError:
    """The error that a stream of Triton's carries as text."""
    return _meant(text, None)


def _meant(text: str, code: Any) -> BacktalError:
    meant = from_wire(text)
    if meant is not None and not isinstance(meant, Internal):
        return meant
    if _BUSY.search(text):
        return ServiceBusy("the service is full", retry_after_seconds=1.0)
    if code is grpc.StatusCode.UNAVAILABLE or _RESTARTING.search(text):
        return ServiceBusy("the service is starting again", retry_after_seconds=RESTART_SECONDS)
    if _UNKNOWN.search(text):
        # The catalogue had it a moment ago. Where it has gone for good, the next try is told so.
        return ServiceBusy("the model is being loaded again", retry_after_seconds=RESTART_SECONDS)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the answer was there")
    if code is grpc.StatusCode.CANCELLED:
        return Cancelled("the request was given up")
    _log.error("Triton: %s %s", code, text)
    return Internal(A_BUG)


def told(error: BaseException) -> BacktalError:
    """What of an exception a caller may know; a bug goes to the log."""
    if isinstance(error, BacktalError) and type(error) is not Internal:
        return error
    if not isinstance(error, Internal):
        _log.error("a request failed by a bug", exc_info=error)
    return Internal(A_BUG)


def field_of(error: BacktalError) -> str | None:
    """The tensor or parameter that a refusal begins with."""
    if not isinstance(error, InvalidArgument):
        return None
    found = _FIELD.match(error.message)
    return found and (found["unknown"] or found["field"])


def status_metadata(error: BacktalError) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata of gRPC: `google.rpc` details, and how long to wait before a retry."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    metadata: list[tuple[str, str | bytes]] = []
    if (field := field_of(error)) is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if (seconds := error.retry_after_seconds) is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        metadata.append(("grpc-retry-pushback-ms", str(round(seconds * 1000))))
    status = status_pb2.Status(
        code=getattr(grpc.StatusCode, error.grpc_code).value[0], message=error.message
    )
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (*metadata, ("grpc-status-details-bin", status.SerializeToString()))


def retry_after_header(error: BacktalError) -> dict[str, str]:
    """HTTP's `Retry-After`, whole seconds, where there is something to wait for."""
    if error.retry_after_seconds is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(error.retry_after_seconds)))}
