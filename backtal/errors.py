"""The error tree. Each kind knows the gRPC code and the HTTP status it is answered with.

    BacktalError
    ├── InvalidArgument      INVALID_ARGUMENT    400   the request, a file or a setting is wrong
    │   ├── InvalidVideo                               not a video, none inside, damaged, empty
    │   ├── LimitExceeded                              too long, too large, too many pixels
    │   ├── InvalidFile                                features, annotations, manifests, checkpoints
    │   ├── GateFailed                                 a network or bundle further off than allowed
    │   └── VersionRefused                             a running service cannot serve it
    ├── NotFound             NOT_FOUND           404   no such model, no such object
    ├── Unauthenticated      UNAUTHENTICATED     401
    ├── PermissionDenied     PERMISSION_DENIED   403   a URI outside the allowed roots
    ├── ResourceExhausted    RESOURCE_EXHAUSTED  429   the caller's own quota
    ├── Unavailable          UNAVAILABLE         503   not this time; try again
    │   ├── ServiceBusy                                full, starting, stopping; whoever asks
    │   └── DecoderUnavailable                         ended from outside, over this request
    ├── DeadlineExceeded     DEADLINE_EXCEEDED   504
    ├── Cancelled            CANCELLED           499   the caller went away
    ├── MissingDependency    FAILED_PRECONDITION 501   an extra or a system library is not installed
    └── Internal             INTERNAL            500   a bug of ours

Triton's Python backend has no word for half of these and turns every error of an inner model
into INTERNAL, so an error crosses Triton inside its message: ``[CODE] text``, with the kind where
it is more than its code and with the wait, ``[UNAVAILABLE;reason=SERVICE_BUSY;retry=1.5] text``
(``to_wire`` and ``from_wire``).
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

VideoProblem = Literal[
    "unreadable", "no_video_stream", "nothing_decoded", "damaged", "incomplete", "decoder_crashed"
]


class BacktalError(Exception):
    """Any error that has an answer: what was wrong, its value, and what is allowed."""

    grpc_code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def reason(self) -> str:
        """The kind as the wire names it: `SERVICE_BUSY` of `ServiceBusy`."""
        return _reason(type(self))


class InvalidArgument(BacktalError):
    """The caller can mend it: the request, a file or a setting is wrong."""

    grpc_code = "INVALID_ARGUMENT"
    http_status = 400


class InvalidVideo(InvalidArgument):
    """The bytes are no video, hold no video stream, or do not decode to what they declare.

    `problem` is which of these, in a word.
    """

    def __init__(
        self,
        message: str,
        *,
        problem: VideoProblem = "unreadable",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.problem: VideoProblem = problem


class LimitExceeded(InvalidArgument):
    """The video is longer or larger than the operator allows."""


class InvalidFile(InvalidArgument):
    """A file of features, annotations, clicks, settings or weights is not what it should be."""


class GateFailed(InvalidArgument):
    """A network or a bundle is further from what it should answer than its gate allows."""


class VersionRefused(InvalidArgument):
    """A running service tried a new version of a bundle, and goes on with the one before."""


class NotFound(BacktalError):
    """No such model, file or object."""

    grpc_code = "NOT_FOUND"
    http_status = 404


class Unauthenticated(BacktalError):
    """No key, or one that is not known."""

    grpc_code = "UNAUTHENTICATED"
    http_status = 401


class PermissionDenied(BacktalError):
    """The caller may not have this: a URI outside the allowed roots, another key's model."""

    grpc_code = "PERMISSION_DENIED"
    http_status = 403


class ResourceExhausted(BacktalError):
    """The caller is beyond its own quota."""

    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429


class Unavailable(BacktalError):
    """No answer this time; the caller may try again."""

    grpc_code = "UNAVAILABLE"
    http_status = 503


class ServiceBusy(Unavailable):
    """The service is full, starting or stopping: the request itself was not looked at."""


class DecoderUnavailable(Unavailable):
    """The decoder of a video cannot be started, or is ended from outside."""


class DeadlineExceeded(BacktalError):
    """The caller's deadline passed before the answer was there."""

    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504


class Cancelled(BacktalError):
    """The caller went away."""

    grpc_code = "CANCELLED"
    http_status = 499


class MissingDependency(BacktalError):
    """An extra or a system library that this needs is not installed."""

    grpc_code = "FAILED_PRECONDITION"
    http_status = 501


class Internal(BacktalError):
    """A bug of ours."""


_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def _reason(kind: type[BacktalError]) -> str:
    return _WORD_START.sub("_", kind.__name__).upper()


def _kinds(kind: type[BacktalError]) -> list[type[BacktalError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


_BY_CODE = {kind.grpc_code: kind for kind in BacktalError.__subclasses__()}
_BY_REASON = {_reason(kind): kind for kind in _kinds(BacktalError)[1:]}

# Triton may put the names of the models it passed through in front of our prefix.
_WIRE = re.compile(
    r"\[(?P<code>[A-Z_]+)(?:;reason=(?P<reason>[A-Z_]+))?(?:;retry=(?P<retry>[0-9.]+))?\] "
    r"(?P<text>.*)",
    re.DOTALL,
)


def error_of(
    code: str, reason: str | None, message: str, retry_after_seconds: float | None = None
) -> BacktalError | None:
    """The kind that a gRPC code and a reason name; the code's own for a reason that is not known.

    None for a code that is none of ours.
    """
    kind = _BY_REASON.get(reason or "")
    if kind is None or kind.grpc_code != code:
        kind = _BY_CODE.get(code)
    return None if kind is None else kind(message, retry_after_seconds=retry_after_seconds)


def to_wire(error: BacktalError) -> str:
    """The error as one line of text that survives Triton."""
    is_more = type(error) is not _BY_CODE[error.grpc_code]
    reason = f";reason={error.reason}" if is_more else ""
    retry = error.retry_after_seconds
    suffix = "" if retry is None else f";retry={retry:g}"
    return f"[{error.grpc_code}{reason}{suffix}] {error.message}"


def from_wire(text: str) -> BacktalError | None:
    """The error that ``to_wire`` wrote, found anywhere in ``text``; None where there is none."""
    found = _WIRE.search(text)
    if found is None:
        return None
    retry = float(found["retry"]) if found["retry"] else None
    return error_of(found["code"], found["reason"], found["text"], retry)


# What Triton says in words of its own, and what is meant by it.
_TRITON = (
    (ServiceBusy, r"maximum queue size", "the service is full", 1.0),
    (ServiceBusy, r"Server is stopping|Server not ready", "the service is stopping", None),
    (
        ServiceBusy,
        r"Stub process .* is not healthy|no available versions",
        "a part of the service is being stopped or started",
        1.0,
    ),
    (
        Unavailable,
        r"shared memory pool size",
        "the server has no shared memory left for a message of this size: send the video's uri",
        1.0,
    ),
)


def from_triton(text: str) -> BacktalError | None:
    """The error of ours inside Triton's ``text``, or what its own words mean; None for others."""
    ours = from_wire(text)
    if ours is not None:
        return ours
    for kind, pattern, message, retry_after_seconds in _TRITON:
        if re.search(pattern, text):
            return kind(message, retry_after_seconds=retry_after_seconds)
    return None
