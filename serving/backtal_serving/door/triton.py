"""The private channel to Triton: raw messages in and out, its errors translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from backtal_serving.door.refusals import from_triton, from_triton_text

SERVICE = "inference.GRPCInferenceService"
# Without these a channel looks for a Triton that was started again for up to 6 s.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
PROBE_SECONDS = 5.0


class Triton:
    """Calls to one Triton. Each raises a kind of `backtal.errors`."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        self._stream = self._channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def infer(self, message: bytes, timeout_seconds: float) -> bytes:
        """A ModelInferRequest to its ModelInferResponse, both serialized."""
        try:
            answer: bytes = await self._infer(message, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise from_triton(error) from None
        return answer

    async def stream(self, message: bytes, timeout_seconds: float) -> AsyncGenerator[Any, None]:
        """A ModelInferRequest to each ModelInferResponse, to the last."""
        call = self._stream(timeout=timeout_seconds)
        try:
            await call.write(message)
            await call.done_writing()
            async for response in call:
                if response.error_message:
                    raise from_triton_text(response.error_message)
                yield response.infer_response
        except grpc.aio.AioRpcError as error:
            raise from_triton(error) from None
        # What a stream that broke raises while it is still being written to.
        except asyncio.InvalidStateError:
            raise from_triton_text("not ready") from None
        finally:
            call.cancel()

    async def call(self, method: str, request: Any, response_type: Any) -> Any:
        """One of the small calls: readiness, index, metadata, configuration."""
        stub = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        try:
            return await stub(request, timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_triton(error) from None
