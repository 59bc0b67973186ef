"""uvicorn, on the event loop that gRPC runs on, without its signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn

from backtal.errors import InvalidFile, Unavailable
from backtal_serving.door.core import Door
from backtal_serving.door.http.app import make_app
from backtal_serving.door.http.job_routes import make_runner
from backtal_serving.door.http.protocol import BoundedHttpProtocol
from backtal_serving.door.jobs.store import JobStore

KEEP_ALIVE_SECONDS = 30
BACKLOG = 512


class HttpServer:
    """The HTTP side of one door, jobs and all."""

    def __init__(self, door: Door) -> None:
        settings = door.settings
        self._jobs = JobStore(
            settings.jobs_folder,
            max_queued=settings.jobs.max_queued,
            max_bytes=settings.jobs.max_bytes,
        )
        self._runner = make_runner(door, self._jobs)
        limits = door.settings.limits
        bounds = {
            "header_seconds": limits.header_seconds,
            "answer_idle_seconds": limits.answer_idle_seconds,
        }
        protocol = type("DoorHttpProtocol", (BoundedHttpProtocol,), bounds)
        self._settings = door.settings
        config = uvicorn.Config(
            make_app(door, self._jobs, self._runner),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        if (tls := door.settings.tls) is not None:
            config.ssl_certfile = str(tls.certificate)
            config.ssl_keyfile = str(tls.private_key)
            config.ssl_ca_certs = None if tls.client_ca is None else str(tls.client_ca)
            config.ssl_cert_reqs = ssl.CERT_NONE if tls.client_ca is None else ssl.CERT_REQUIRED
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; the port. Raises Unavailable where it cannot be had, InvalidFile for TLS."""
        host, port = self._settings.host, self._settings.http_port or 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(f"HTTP cannot listen on {host}:{port}: {error.strerror}") from None
        try:
            self._server.config.load()
        except (OSError, ssl.SSLError) as error:
            raise InvalidFile(f"the files for TLS cannot be used: {error}") from None
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.01)
        return int(listener.getsockname()[1])

    async def run_jobs(self) -> None:
        """Work on jobs, for ever."""
        await self._runner.run()

    async def stop(self, grace_seconds: float) -> None:
        """Close, and give requests in flight `grace_seconds`; running jobs wait for a new door."""
        await self._runner.stop()
        await self._stop_listening(grace_seconds)
        self._jobs.close()

    async def _stop_listening(self, grace_seconds: float) -> None:
        if self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = int(grace_seconds)
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own matter."""
        yield
