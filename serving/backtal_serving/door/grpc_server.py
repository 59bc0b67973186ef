"""The gRPC server: its limits, TLS, health and reflection."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from backtal.errors import InvalidFile, Unavailable
from backtal_serving.door.core import Door
from backtal_serving.door.grpc_service import GrpcService
from backtal_serving.door.settings import DoorSettings, Tls
from backtal_serving.door.triton import SERVICE

HEALTH_SECONDS = 0.5
METADATA_BYTES = 16 * 1024


class GrpcServer:
    """A server of grpc.aio for one door."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=_options(door.settings),
            maximum_concurrent_rpcs=door.settings.limits.connections,
        )
        self._server.add_generic_rpc_handlers((GrpcService(door).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Listen; the port. Raises Unavailable where it cannot be had."""
        settings = self._door.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        try:
            if settings.tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(settings.tls))
        except RuntimeError as error:
            raise Unavailable(f"gRPC cannot listen on {address}: {error}") from None
        await self._server.start()
        return int(port)

    async def watch_health(self) -> None:
        """Tell the health service what the catalogue knows, for ever."""
        while True:
            is_ready = self._door.catalogue.is_ready
            kinds = health_pb2.HealthCheckResponse
            status = kinds.SERVING if is_ready else kinds.NOT_SERVING
            for service in ("", SERVICE):
                await self._health.set(service, status)
            await asyncio.sleep(HEALTH_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, and give those in flight `grace_seconds`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)


def _options(settings: DoorSettings) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Else a second door shares the port in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", 256),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 4),
        ("grpc.max_connection_idle_ms", 600_000),
    ]


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        pair = (tls.private_key.read_bytes(), tls.certificate.read_bytes())
        authority = None if tls.client_ca is None else tls.client_ca.read_bytes()
    except OSError as error:
        raise InvalidFile(f"{error.filename}, for TLS, cannot be read: {error.strerror}") from None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
