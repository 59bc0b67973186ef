"""`/v1/jobs`: what takes longer than a connection should live."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from backtal.run_control import Progress
from backtal.segments import Segment
from backtal_serving.door.core import Door
from backtal_serving.door.http.detect_routes import (
    UPLOAD_BODY,
    DetectQuery,
    bundle_of,
    detection_request,
    source_of,
)
from backtal_serving.door.http.entry import other
from backtal_serving.door.http.formats import (
    DetectedSegment,
    Detection,
    detection_of,
    segments_of,
    tensors_of,
)
from backtal_serving.door.http.problems import RESPONSES
from backtal_serving.door.jobs.runner import JobRunner
from backtal_serving.door.jobs.store import Job, JobStore
from backtal_serving.tracing.context import HEADER

# A comment now and then, so that nothing in between takes the connection for dead.
HEARTBEAT_SECONDS = 15.0
EVENTS_TYPE = "text/event-stream"


class JobProblem(BaseModel):
    """Why a job failed."""

    code: str = Field(examples=["INVALID_ARGUMENT"])
    detail: str


class JobBody(BaseModel):
    """A job as its caller sees it."""

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created: datetime
    ended: datetime | None = None
    done_seconds: float | None = Field(None, description="of the video, while it is running")
    total_seconds: float | None = None
    result: Detection | None = None
    problem: JobProblem | None = None


def make_runner(door: Door, store: JobStore) -> JobRunner:
    """The runner of jobs that were asked for by these routes."""

    def request_of(asked: dict[str, Any]) -> Any:
        query = DetectQuery.model_validate(asked["query"])
        return detection_request(asked["bundle"], query, asked["uri"])

    def progress_of(response: Any) -> Progress | None:
        tensors = tensors_of(response)
        progress = tensors.get("progress")
        if progress is None or progress.size != 2:
            return None
        segments = segments_of(tensors) if "segments" in tensors else ()
        return Progress(float(progress[0]), float(progress[1]), segments)

    def result_of(response: Any) -> dict[str, Any]:
        return detection_of(tensors_of(response)).model_dump(exclude_none=True)

    return JobRunner(
        door, store, make_request=request_of, read_progress=progress_of, read_result=result_of
    )


def router(door: Door, store: JobStore, runner: JobRunner) -> APIRouter:
    """The routes of `/v1/jobs`."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES)

    @routes.post(
        "",
        status_code=202,
        summary="Detect later: the location of a job",
        description="Bodies and query as of /v1/detect. A repeated idempotency-key is one job.",
        openapi_extra=UPLOAD_BODY,
    )
    async def add(
        request: Request,
        response: Response,
        query: Annotated[DetectQuery, Query()],
        idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
    ) -> JobBody:
        with other(door, request) as asked:
            bundle = bundle_of(door, asked, query)
            async with source_of(door, request) as (uri, spooled):
                wanted = {
                    "bundle": bundle,
                    "query": query.model_dump(),
                    "uri": uri,
                    "has_video": spooled is not None,
                }
                job, _ = store.add(
                    asked.caller.name,
                    {**wanted, "traceparent": request.headers.get(HEADER)},
                    _fingerprint(wanted, "" if spooled is None else spooled.sha256),
                    video=None if spooled is None else spooled.path,
                    idempotency_key=idempotency_key,
                )
            runner.wake()
            response.headers["location"] = f"/v1/jobs/{job.id}"
            return _body(job, runner)

    @routes.get("/{identifier}", summary="How a job is doing, and its result")
    async def get(request: Request, identifier: str) -> JobBody:
        with other(door, request) as asked:
            return _body(store.get(identifier, asked.caller.name), runner)

    @routes.delete("/{identifier}", summary="Cancel a job")
    async def cancel(request: Request, identifier: str) -> JobBody:
        with other(door, request) as asked:
            runner.cancel(store.get(identifier, asked.caller.name))
            return _body(store.get(identifier, asked.caller.name), runner)

    @routes.get(
        "/{identifier}/events",
        summary="A job's progress, segments and end as server-sent events",
        response_class=StreamingResponse,
        responses={200: {"content": {EVENTS_TYPE: {}}, "description": "Events to the job's end."}},
    )
    async def events(request: Request, identifier: str) -> StreamingResponse:
        with other(door, request) as asked:
            job = store.get(identifier, asked.caller.name)
        return StreamingResponse(
            _events(store, runner, job),
            media_type=EVENTS_TYPE,
            headers={"cache-control": "no-store"},
        )

    return routes


async def _events(store: JobStore, runner: JobRunner, job: Job) -> AsyncIterator[str]:
    told = None
    given: set[Segment] = set()
    while not job.has_ended and not runner.is_stopping:
        feed = runner.feeds.get(job.id)
        # Taken first: what changes while events are being sent wakes up at once.
        changed = feed.changed if feed else asyncio.Event()
        body = _body(job, runner)
        if (now := (body.state, body.done_seconds)) != told:
            told = now
            yield _event("progress", body)
        for segment in _new(feed.segments if feed else (), given):
            yield segment
        # A job that is queued has no feed yet.
        seconds = HEARTBEAT_SECONDS if feed else 0.5
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed.wait(), seconds)
        if feed and not changed.is_set():
            yield ": still here\n\n"
        job = store.get(job.id, job.caller)
    if job.has_ended:
        body = _body(job, runner)
        if body.result is not None:
            for segment in _new((Segment(**dict(one)) for one in body.result.segments), given):
                yield segment
        yield _event("end", body)


def _new(segments: Iterable[Segment], given: set[Segment]) -> list[str]:
    """Events of the segments that were not given yet."""
    new = [segment for segment in segments if segment not in given]
    given.update(new)
    return [_event("segment", DetectedSegment(**asdict(segment))) for segment in new]


def _event(name: str, body: BaseModel) -> str:
    return f"event: {name}\ndata: {body.model_dump_json(exclude_none=True)}\n\n"


def _body(job: Job, runner: JobRunner) -> JobBody:
    feed = runner.feeds.get(job.id)
    succeeded = job.state == "succeeded"
    return JobBody(
        id=job.id,
        state=job.state,
        created=_time(job.created),
        ended=None if job.ended is None else _time(job.ended),
        done_seconds=None if feed is None else feed.done_seconds,
        total_seconds=None if feed is None else feed.total_seconds,
        result=Detection.model_validate(job.result) if succeeded else None,
        problem=JobProblem.model_validate(job.result) if job.state == "failed" else None,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _fingerprint(wanted: dict[str, Any], sha256: str) -> str:
    text = json.dumps({**wanted, "sha256": sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
