"""KServe v2 over gRPC, with the messages of tritonclient: the part of it that strangers get.

The methods that are not here (repository control, shared memory, tracing, logging, statistics)
are answered UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from importlib.metadata import version
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from backtal.errors import (
    BacktalError,
    Cancelled,
    DeadlineExceeded,
    ResourceExhausted,
    to_wire,
)
from backtal_serving.door.core import Asked, Door, parse_message
from backtal_serving.door.outcomes import Entry
from backtal_serving.door.refusals import status_metadata, told
from backtal_serving.door.timeouts import timeout
from backtal_serving.door.triton import SERVICE
from backtal_serving.tracing.context import HEADER

ENTRY: Entry = "grpc"
SERVER_NAME = "backtal"
# Triton's own header: errors of a stream as gRPC's status in place of a text.
STATUS_HEADER = "triton_grpc_error"
# How long a caller may leave an answer unread.
WRITE_SECONDS = 60.0

Context = Any
Answer = TypeVar("Answer")


class GrpcService:
    """The handlers of `inference.GRPCInferenceService`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, for a server of grpc.aio."""
        pb = service_pb2
        handlers = {
            # Raw bytes, read by us: key and quota are looked at before a message is taken in.
            "ModelInfer": grpc.stream_unary_rpc_method_handler(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                self.stream_infer,
                response_serializer=pb.ModelStreamInferResponse.SerializeToString,
            ),
        }
        methods: dict[str, tuple[Callable[..., Awaitable[Any]], Any]] = {
            "ServerLive": (self.server_live, pb.ServerLiveRequest),
            "ServerReady": (self.server_ready, pb.ServerReadyRequest),
            "ModelReady": (self.model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self.server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self.model_metadata, pb.ModelMetadataRequest),
            "ModelConfig": (self.model_config, pb.ModelConfigRequest),
            "RepositoryIndex": (self.repository_index, pb.RepositoryIndexRequest),
        }
        for name, (method, request_type) in methods.items():
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=request_type.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def infer(self, messages: AsyncIterator[bytes], context: Context) -> bytes:
        """ModelInfer, both messages serialized."""

        async def answer() -> bytes:
            with self._door.request(
                ENTRY, _authorization(context), _header(context, HEADER)
            ) as asked:
                try:
                    return await self._infer(asked, messages, context)
                except asyncio.CancelledError:
                    asked.counted.code = _why_cancelled(context)
                    raise

        return await _or_abort(answer(), context)

    async def _infer(self, asked: Asked, messages: AsyncIterator[bytes], context: Context) -> bytes:
        door = self._door
        door.check_room(asked)
        async with AsyncExitStack() as stack:
            async with door.reading.turn(asked.caller.name):
                request = parse_message(await self._read(messages))
                prepared = await stack.enter_async_context(door.prepare(asked, request))
                del request
            return await door.infer(prepared, _seconds_left(context, door))

    async def _read(self, messages: AsyncIterator[bytes]) -> bytes:
        seconds = self._door.settings.limits.body_idle_seconds
        try:
            async with timeout(seconds):
                message = await anext(messages, None)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"the request did not arrive within {seconds:g} s") from None
        if message is None:
            # For one that is too large gRPC has answered by itself, with this very code.
            limit = self._door.settings.limits.max_message_bytes
            raise ResourceExhausted(
                f"no message, or one of more than {limit} bytes: send a larger video by its uri, "
                "or stream it to POST /v1/detect"
            )
        return message

    async def stream_infer(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """ModelStreamInfer: one request after the other, each to its last response."""

        async def answer() -> None:
            async for message in messages:
                try:
                    await self._stream_one(message, context)
                except BacktalError as error:
                    if _wants_status(context):
                        raise
                    text = to_wire(told(error))
                    await context.write(service_pb2.ModelStreamInferResponse(error_message=text))

        await _or_abort(answer(), context)

    async def _stream_one(self, message: bytes, context: Context) -> None:
        door = self._door
        with door.request(ENTRY, _authorization(context), _header(context, HEADER)) as asked:
            try:
                request = parse_message(message)
                wants_empty = _flag(request, "triton_enable_empty_final_response")
                async with door.prepare(asked, request) as prepared:
                    del request, message
                    responses = door.stream(prepared, _seconds_left(context, door))
                    async with aclosing(responses):
                        async for response in responses:
                            if _is_empty_final(response) and not wants_empty:
                                continue
                            await _write(context, response)
            except asyncio.CancelledError:
                asked.counted.code = _why_cancelled(context)
                raise

    async def server_live(self, _request: Any, _context: Context) -> Any:
        """ServerLive: the door itself."""
        return service_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, _request: Any, _context: Context) -> Any:
        """ServerReady: there is a bundle that answers."""
        return service_pb2.ServerReadyResponse(ready=self._door.catalogue.is_ready)

    async def model_ready(self, request: Any, _context: Context) -> Any:
        """ModelReady, false for what is no public model."""
        spec = self._door.catalogue.models.get(request.name)
        known = spec is not None and request.version in ("", *spec.versions)
        return service_pb2.ModelReadyResponse(ready=known and self._door.catalogue.is_ready)

    async def server_metadata(self, _request: Any, _context: Context) -> Any:
        """ServerMetadata of the door, not of the Triton behind it."""
        return service_pb2.ServerMetadataResponse(
            name=SERVER_NAME, version=version("backtal"), extensions=["model_configuration"]
        )

    async def model_metadata(self, request: Any, context: Context) -> Any:
        """ModelMetadata of a public model."""

        def answer(asked: Asked) -> Any:
            return metadata(self._door.model(asked, request.name, request.version))

        return await self._informed(answer, context)

    async def model_config(self, request: Any, context: Context) -> Any:
        """ModelConfig of a public model."""

        def answer(asked: Asked) -> Any:
            spec = self._door.model(asked, request.name, request.version)
            return service_pb2.ModelConfigResponse(config=spec.config)

        return await self._informed(answer, context)

    async def repository_index(self, request: Any, context: Context) -> Any:
        """RepositoryIndex: the public models, for those who may use them; what is refused too."""

        def answer(asked: Asked) -> Any:
            allowed = asked.caller.models
            index = service_pb2.RepositoryIndexResponse()
            for spec in self._door.catalogue.models.values():
                if allowed is None or spec.bundle in allowed:
                    for number in spec.versions:
                        index.models.add(name=spec.name, version=number, state="READY")
                    for number, reason in () if request.ready else spec.refused.items():
                        index.models.add(
                            name=spec.name, version=number, state="UNAVAILABLE", reason=reason
                        )
            return index

        return await self._informed(answer, context)

    async def _informed(self, answer: Callable[[Asked], Any], context: Context) -> Any:
        async def counted() -> Any:
            authorization = _authorization(context)
            with self._door.other_request(ENTRY, authorization) as asked:
                return answer(asked)

        return await _or_abort(counted(), context)


def metadata(spec: Any) -> Any:
    """KServe's description of a public model."""
    answer = service_pb2.ModelMetadataResponse(
        name=spec.name, versions=spec.versions, platform=SERVER_NAME
    )
    for ours, theirs in ((spec.inputs, answer.inputs), (spec.outputs, answer.outputs)):
        for name, tensor in ours.items():
            theirs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
    return answer


async def _or_abort(answer: Awaitable[Answer], context: Context) -> Answer:
    """The answer, or gRPC's status of its error.

    A cancellation is passed on: it comes from the server, which ends the call by it.
    """
    try:
        return await answer
    except Exception as error:
        refusal = told(error)
    code = getattr(grpc.StatusCode, refusal.grpc_code)
    await context.abort(code, refusal.message, status_metadata(refusal))
    raise AssertionError("abort raises")


async def _write(context: Context, response: Any) -> None:
    try:
        async with timeout(WRITE_SECONDS):
            await context.write(service_pb2.ModelStreamInferResponse(infer_response=response))
    except asyncio.TimeoutError:
        raise ResourceExhausted(f"no response was read for {WRITE_SECONDS:g} s") from None


def _is_empty_final(response: Any) -> bool:
    return not response.outputs and _flag(response, "triton_final_response")


def _flag(message: Any, name: str) -> bool:
    # Looked up by `in`: reading a key of a map field makes it.
    return name in message.parameters and bool(message.parameters[name].bool_param)


def _authorization(context: Context) -> str | None:
    return _header(context, "authorization")


def _header(context: Context, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else None
    return None


def _wants_status(context: Context) -> bool:
    return (_header(context, STATUS_HEADER) or "").lower() == "true"


def _seconds_left(context: Context, door: Door) -> float:
    left: float | None = context.time_remaining()
    return door.settings.requests.max_seconds if left is None else left


def _why_cancelled(context: Context) -> str:
    """gRPC cancels for a passed deadline too, and does not say so."""
    left = context.time_remaining()
    kind = Cancelled if left is None or left > 0.005 else DeadlineExceeded
    return kind.grpc_code
