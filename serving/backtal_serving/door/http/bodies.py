"""Reading bodies as they come: bounded in size and time, a multipart file without a copy of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from backtal.errors import Cancelled, DeadlineExceeded, InvalidArgument, LimitExceeded
from backtal_serving.door.settings import DoorLimits
from backtal_serving.door.timeouts import timeout

JSON_TYPE = "application/json"
MULTIPART_TYPE = "multipart/form-data"
FILE_FIELD = "video"
# The average rate of an upload is not looked at before.
PATIENCE_SECONDS = 30.0
LINGER_SECONDS = 2.0
LINGER_BYTES = 128 * 2**20
MAX_PART_HEADER_BYTES = 8 * 1024

Result = TypeVar("Result")


def media_type(request: Request) -> str:
    """The body's type, without its options."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_encoding(request: Request) -> None:
    """Raise InvalidArgument for a compressed body: it could grow a thousandfold here."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidArgument(f"content-encoding is {encoding[:40]!r}, allowed is identity")


async def chunks(request: Request, limits: DoorLimits) -> AsyncGenerator[bytes, None]:
    """The body's pieces. Raises Cancelled, and DeadlineExceeded for one that comes too slowly."""
    check_encoding(request)
    stream = request.stream()
    started, num_bytes = time.monotonic(), 0
    try:
        while True:
            async with timeout(limits.body_idle_seconds):
                chunk = await anext(stream, None)
            if chunk is None:
                request.state.body_is_read = True
                return
            num_bytes += len(chunk)
            seconds = time.monotonic() - started
            if (
                seconds > PATIENCE_SECONDS
                and num_bytes < limits.min_body_bytes_per_second * seconds
            ):
                raise DeadlineExceeded(
                    f"the body comes at {num_bytes / seconds:.0f} bytes/s, "
                    f"expected are {limits.min_body_bytes_per_second} or more"
                )
            if chunk:
                yield chunk
    except asyncio.TimeoutError:
        raise DeadlineExceeded(
            f"no byte of the body came for {limits.body_idle_seconds:g} s"
        ) from None
    except ClientDisconnect:
        raise Cancelled("the caller went away") from None


async def linger(request: Request) -> None:
    """Read what is left of a body and drop it, within bounds, before a refusal is sent.

    Closed under a client that still sends, the connection would take the answer with it.
    """
    is_read = getattr(request.state, "body_is_read", False)
    is_sent = {"content-length", "transfer-encoding"} & set(request.headers)
    # Who waits for a "100 Continue" has not sent, and reading would ask for it.
    if is_read or not is_sent or "expect" in request.headers:
        return
    num_bytes = 0
    with suppress(asyncio.TimeoutError):
        async with timeout(LINGER_SECONDS):
            while num_bytes < LINGER_BYTES:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                num_bytes += len(message.get("body", b""))


async def whole_body(request: Request, limits: DoorLimits, max_bytes: int) -> bytes:
    """The body, which has at most `max_bytes`. Raises LimitExceeded and as `chunks`."""
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    _check_size(int(declared) if declared.isdecimal() else 0, max_bytes)
    async for chunk in chunks(request, limits):
        body += chunk
        _check_size(len(body), max_bytes)
    return bytes(body)


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise LimitExceeded(
            f"the body has {num_bytes} bytes or more, allowed are up to {max_bytes}: "
            "stream a video to POST /v1/detect, or send its uri"
        )


def parse_json(body: bytes, what: str) -> Any:
    """Strict JSON. Raises InvalidArgument."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    # RecursionError: brackets nested deeper than the parser can go.
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is no JSON: {str(error)[:200]}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def video_chunks(request: Request, limits: DoorLimits) -> AsyncIterator[bytes]:
    """The bytes of the video that a request uploads: its body, or the file `video` of a form."""
    if media_type(request) == MULTIPART_TYPE:
        return _form_file(request, limits)
    return chunks(request, limits)


async def _form_file(request: Request, limits: DoorLimits) -> AsyncIterator[bytes]:
    _, options = parse_options_header(request.headers["content-type"])
    if not options.get(b"boundary"):
        raise InvalidArgument("the form has no boundary in its content-type")
    form = _Form()
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        async for chunk in chunks(request, limits):
            parser.write(chunk)
            while form.pieces:
                yield form.pieces.popleft()
        parser.finalize()
    except MultipartParseError as error:
        raise InvalidArgument(f"the form cannot be read: {str(error)[:200]}") from None
    if not form.is_complete:
        raise InvalidArgument(f"the form has no whole file {FILE_FIELD!r}")


class _Form:
    """Takes the file `video` out of a form that is parsed; refuses all else that is in it."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.is_complete = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._num_parts = 0

    def callbacks(self) -> Any:
        """For python_multipart's parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._num_parts += 1
        self._disposition = b""
        if self._num_parts > 1:
            raise InvalidArgument("the form has several parts: options go into the query")

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > MAX_PART_HEADER_BYTES:
            raise InvalidArgument(f"a part's header has more than {MAX_PART_HEADER_BYTES} bytes")

    def _end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _check_name(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        if name != FILE_FIELD:
            raise InvalidArgument(
                f"the form has a part {name[:80]!r}, allowed is {FILE_FIELD!r}; options go into "
                "the query"
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(data[start:end])

    def _end(self) -> None:
        self.is_complete = True


async def unless_disconnected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the caller goes away: then Cancelled.

    To be called when the body has been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Cancelled("the caller went away")
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
