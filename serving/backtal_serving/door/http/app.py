"""The application: its routes, its problems, who may see its metrics."""

from __future__ import annotations

import ipaddress
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from backtal.errors import PermissionDenied, ServiceBusy
from backtal_serving.door.core import Door
from backtal_serving.door.exposition import Exposition
from backtal_serving.door.http import detect_routes, job_routes, kserve_routes
from backtal_serving.door.http.bodies import linger
from backtal_serving.door.http.entry import count_refused
from backtal_serving.door.http.problems import RESPONSES, add_handlers, problem_response
from backtal_serving.door.jobs.runner import JobRunner
from backtal_serving.door.jobs.store import JobStore

DESCRIPTION = "Which actions are in a video, and when. gRPC speaks KServe v2; so does `/v2` here."
LOCAL_NAMES = frozenset({"localhost", "testserver"})


def make_app(door: Door, jobs: JobStore, runner: JobRunner) -> FastAPI:
    """The HTTP application of one door."""
    app = FastAPI(title="backtal", version=version("backtal"), description=DESCRIPTION)
    app.include_router(detect_routes.router(door))
    app.include_router(job_routes.router(door, jobs, runner))
    app.include_router(kserve_routes.router(door))
    app.include_router(_operation(door, Exposition(door, jobs)))
    add_handlers(app, door.outcomes)
    app.add_middleware(LocalHostOnly, door=door)
    return app


def _operation(door: Door, exposition: Exposition) -> APIRouter:
    routes = APIRouter(tags=["operation"], responses=RESPONSES)

    @routes.get("/healthz", summary="Whether the door runs")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", summary="Whether there is a bundle that answers")
    async def readyz() -> dict[str, str]:
        if not door.catalogue.is_ready:
            raise ServiceBusy("no bundle is ready", retry_after_seconds=1.0)
        return {"status": "ready"}

    @routes.get("/metrics", summary="Prometheus's text format", response_class=Response)
    async def metrics(request: Request) -> Response:
        check_operator(door, request)
        return Response(await exposition.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def check_operator(door: Door, request: Request) -> None:
    """Raise where a caller is neither on loopback nor an operator."""
    if request.client is not None and _is_loopback(request.client.host):
        return
    caller = door.keys.caller(request.headers.get("authorization"))
    if caller.role != "operator":
        raise PermissionDenied("this is for the key of an operator")


class LocalHostOnly:
    """Where no key is set, refuses requests that name another host than this machine.

    A page of the web can have a browser send requests to loopback, under a name of its own.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and self._door.keys.is_open:
            host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name.lower() not in LOCAL_NAMES and not _is_loopback(name.strip("[]")):
                refusal = PermissionDenied(f"host is {name[:80]!r}, allowed is this machine's")
                request = Request(scope, receive)
                count_refused(self._door.outcomes, request, refusal)
                await linger(request)
                await problem_response(refusal, close=True)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
