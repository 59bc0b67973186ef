"""What every way in shares: who asks, what for, when it is its turn, and the call to Triton."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import service_pb2

from backtal.errors import BacktalError, DeadlineExceeded, InvalidArgument
from backtal.run_control import StageTime
from backtal_serving.door.callers import Caller, KeyRing
from backtal_serving.door.catalogue import Catalogue, ModelSpec
from backtal_serving.door.checking import LENGTH_BYTES, check
from backtal_serving.door.outcomes import Counted, Entry, Outcomes
from backtal_serving.door.quotas import Quotas
from backtal_serving.door.settings import DoorSettings
from backtal_serving.door.spool import Spool, SpooledFile, pieces
from backtal_serving.door.timeouts import timeout
from backtal_serving.door.triton import Triton
from backtal_serving.door.turns import Turns
from backtal_serving.door.watching import watched
from backtal_serving.handover import (
    ROOTS_PARAMETER,
    SPOOLED_PARAMETER,
    TRACE_PARAMETER,
    roots_parameter,
)
from backtal_serving.tracing.context import TraceContext
from backtal_serving.tracing.tracer import Span, make_tracer

# Smaller videos go with their message: a file would take longer.
SPOOL_FROM_BYTES = 256 * 1024
KEYS_SECONDS = 1.0


@dataclass(frozen=True)
class Asked:
    """A request that was let in: whose it is, how it is counted, and its span."""

    caller: Caller
    counted: Counted
    span: Span


@dataclass(frozen=True)
class Prepared:
    """A request that is fit for Triton: its message, serialized, and the file that goes with it."""

    asked: Asked
    spec: ModelSpec
    message: bytes
    spooled: Path | None = None


class Door:
    """The state of one front door. All of it belongs to one event loop.

    Raises NotFound and InvalidFile for the file of keys, Unavailable for a spool in use.
    """

    def __init__(self, settings: DoorSettings) -> None:
        limits = settings.limits
        self.settings = settings
        self.keys = KeyRing(settings.keys_file)
        self.quotas = Quotas()
        self.outcomes = Outcomes()
        self.tracer = make_tracer(settings.tracing, "door")
        self.spool = Spool(
            settings.spool_folder,
            max_bytes=limits.spool_bytes,
            max_file_bytes=settings.video.max_bytes,
        )
        self.triton = Triton(settings.triton_address)
        self.catalogue = Catalogue(self.triton, settings.report_file)
        # What is read whole into memory; those that wait have not been read.
        self.reading = Turns(
            "being read",
            at_once=limits.uploads_at_once,
            max_waiting=settings.requests.queued,
            max_bytes=limits.waiting_bytes,
        )
        self.turns: dict[str, Turns] = {}

    async def watch(self) -> None:
        """Keep the catalogue and the keys up to date, for ever."""

        async def watch_keys() -> None:
            while True:
                await asyncio.sleep(KEYS_SECONDS)
                self.keys.reload_if_changed()

        await asyncio.gather(self.catalogue.watch(), watch_keys())

    async def close(self) -> None:
        """Let go of Triton and the spool."""
        await self.triton.close()
        self.spool.close()
        self.tracer.close()

    @contextmanager
    def request(
        self, entry: Entry, authorization: str | None, traceparent: str | None = None
    ) -> Iterator[Asked]:
        """Let a detection in, watch it, hold its caller's quota while the block runs.

        Raises Unauthenticated and ResourceExhausted.
        """
        with (
            watched(self.outcomes, self.tracer, entry, traceparent) as (counted, span),
            self._let_in(authorization) as caller,
        ):
            yield Asked(caller, counted, span)

    @contextmanager
    def job(self, caller: str, traceparent: str | None) -> Iterator[Asked]:
        """Watch a job of the key of that name; its quota was looked at when it was added."""
        with watched(self.outcomes, self.tracer, "job", traceparent) as (counted, span):
            yield Asked(self.keys.named(caller), counted, span)

    @contextmanager
    def other_request(self, entry: Entry, authorization: str | None) -> Iterator[Asked]:
        """Let in what is no detection; see `request`."""
        counted = Counted(entry, is_detection=False)
        with self.outcomes.count(counted), self._let_in(authorization) as caller:
            yield Asked(caller, counted, Span())

    @contextmanager
    def _let_in(self, authorization: str | None) -> Iterator[Caller]:
        caller = self.keys.caller(authorization)
        with self.quotas.request(caller):
            yield caller

    def model(self, asked: Asked, name: str, version: str = "") -> ModelSpec:
        """A public model that the caller may use. Raises NotFound and PermissionDenied."""
        spec = self.catalogue.model(name, version)
        asked.counted.bundle = spec.bundle
        asked.caller.check_model(spec.bundle)
        return spec

    @asynccontextmanager
    async def prepare(
        self, asked: Asked, request: Any, spooled: SpooledFile | None = None
    ) -> AsyncIterator[Prepared]:
        """Check a ModelInferRequest and put its video, if it is large, into the spool.

        `spooled` is a video that is there already. Raises InvalidArgument, NotFound,
        PermissionDenied, Unavailable for a full spool.
        """
        spec = self.model(asked, request.model_name, request.model_version)
        check(request, spec)
        # One of ours where the caller gives none: the pipeline's lines of the log have it too.
        request.id = asked.counted.request_id = request.id or uuid.uuid4().hex
        async with AsyncExitStack() as stack:
            if spooled is not None:
                _refuse_second_source(request)
            elif (content := _take_large_video(request)) is not None:
                chunks = pieces(content, LENGTH_BYTES)
                spooled = await stack.enter_async_context(self.spool.write(chunks, "video"))
            if spooled is not None:
                request.parameters[SPOOLED_PARAMETER].string_param = spooled.path.name
            if asked.caller.roots is not None:
                roots = roots_parameter(asked.caller.roots)
                request.parameters[ROOTS_PARAMETER].string_param = roots
            path = None if spooled is None else spooled.path
            yield Prepared(asked, spec, request.SerializeToString(), path)

    async def infer(self, prepared: Prepared, timeout_seconds: float) -> bytes:
        """The serialized ModelInferResponse to a request, when its turn has come.

        Raises Unavailable where the queue is full, DeadlineExceeded, and the pipeline's errors.
        """
        async with self._turn(prepared, timeout_seconds) as left_seconds:
            with _own_words(prepared), self._traced(prepared) as message:
                return await self.triton.infer(message, left_seconds)

    async def stream(self, prepared: Prepared, timeout_seconds: float) -> AsyncGenerator[Any, None]:
        """Each ModelInferResponse to a request of a stream. Raises as `infer` does."""
        async with self._turn(prepared, timeout_seconds) as left_seconds:
            with _own_words(prepared), self._traced(prepared) as message:
                responses = self.triton.stream(message, left_seconds)
                async with aclosing(responses):
                    async for response in responses:
                        yield response

    def check_room(self, asked: Asked) -> None:
        """Raise Unavailable for a caller whose request would be refused once it was read."""
        for turns in self.turns.values():
            turns.check_room(asked.caller.name)

    @asynccontextmanager
    async def _turn(self, prepared: Prepared, timeout_seconds: float) -> AsyncIterator[float]:
        """Hold a turn of the bundle; the seconds that are left of the timeout."""
        timeout_seconds = min(timeout_seconds, self.settings.requests.max_seconds)
        started = time.monotonic()
        deadline = started + timeout_seconds
        turn = self._turns_of(prepared.spec.bundle).turn(
            prepared.asked.caller.name, len(prepared.message)
        )
        async with AsyncExitStack() as stack:
            try:
                async with timeout(timeout_seconds):
                    await stack.enter_async_context(turn)
            except asyncio.TimeoutError:
                raise DeadlineExceeded(
                    f"{timeout_seconds:g} s passed while the request waited for its turn"
                ) from None
            now = time.monotonic()
            self.outcomes.waited(prepared.spec.bundle, now - started)
            waited = StageTime(started, now, now - started)
            self.tracer.record("queue", prepared.asked.span.context, waited)
            yield max(deadline - now, 0.0)

    @contextmanager
    def _traced(self, prepared: Prepared) -> Iterator[bytes]:
        """A span around the call to Triton; the message, which tells the pipeline of it."""
        with self.tracer.span("triton", prepared.asked.span.context, kind="client") as span:
            yield prepared.message + trace_field(span.context)

    def _turns_of(self, bundle: str) -> Turns:
        if bundle not in self.turns:
            requests = self.settings.requests
            self.turns[bundle] = Turns(
                bundle,
                at_once=requests.at_once,
                max_waiting=requests.queued,
                max_bytes=self.settings.limits.waiting_bytes,
            )
        return self.turns[bundle]


def parse_message(message: bytes) -> Any:
    """A ModelInferRequest from its bytes. Raises InvalidArgument."""
    from google.protobuf.message import DecodeError

    try:
        request = service_pb2.ModelInferRequest.FromString(message)
    except (DecodeError, RecursionError):
        raise InvalidArgument(
            f"the message, {len(message)} bytes, is no ModelInferRequest"
        ) from None
    # What this parser does not know, Triton's may: a parameter whose map entry holds a stray field
    # is unknown here and a parameter there, a private one too.
    request.DiscardUnknownFields()
    return request


def trace_field(context: TraceContext | None) -> bytes:
    """What is put behind a serialized ModelInferRequest for the pipeline to know its parent.

    Two messages of protobuf one behind the other are one message with the fields of both, so that
    the first need not be serialized again.
    """
    if context is None:
        return b""
    request = service_pb2.ModelInferRequest()
    request.parameters[TRACE_PARAMETER].string_param = str(context)
    return bytes(request.SerializeToString())


def _take_large_video(request: Any) -> bytes | None:
    """Take the tensor `video` out of the request, if it is large; its raw content."""
    raw = request.raw_input_contents
    for index, tensor in enumerate(request.inputs):
        if tensor.name != "video" or not raw or len(raw[index]) < SPOOL_FROM_BYTES:
            continue
        content: bytes = raw[index]
        del request.inputs[index], raw[index]
        return content
    return None


def _refuse_second_source(request: Any) -> None:
    if request.inputs:
        raise InvalidArgument(
            f"give one of video, uri, features; the request has video and {request.inputs[0].name}"
        )


@contextmanager
def _own_words(prepared: Prepared) -> Iterator[None]:
    """Errors speak of `video`, as its sender called it, not of a file of the spool."""
    try:
        yield
    except BacktalError as error:
        path = prepared.spooled
        if path is None or str(path) not in error.message:
            raise
        raise type(error)(
            error.message.replace(str(path), "video"),
            retry_after_seconds=error.retry_after_seconds,
        ) from None
