"""Works on queued jobs, a few at a time, as one more caller of the bundles' streams."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtal.client import STREAM_SUFFIX
from backtal.errors import Internal, NotFound, Unavailable
from backtal.run_control import Progress
from backtal.segments import Segment
from backtal_serving.door.core import Asked, Door
from backtal_serving.door.jobs.store import Job, JobStore, State
from backtal_serving.door.refusals import told
from backtal_serving.door.spool import SpooledFile

# A job waits for a Triton that is started again, or for room; it is in no hurry.
RETRY_SECONDS = 5.0
SWEEP_SECONDS = 60.0

_log = logging.getLogger(__name__)

# From a job's plain data to its ModelInferRequest, from its last response to its result, and from
# the others to what they tell; None for the last one.
MakeRequest = Callable[[dict[str, Any]], Any]
ReadResult = Callable[[Any], dict[str, Any]]
ReadProgress = Callable[[Any], Progress | None]


@dataclass
class Feed:
    """What a running job has told so far. done_seconds, total_seconds: of the video.

    segments: those that are final, in the order they came in; a job that is run again tells them
    again.
    """

    done_seconds: float = 0.0
    total_seconds: float = 0.0
    segments: dict[Segment, None] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake up who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class JobRunner:
    """Runs the jobs of a store. `run` goes on until it is cancelled, `stop` lets jobs go."""

    def __init__(
        self,
        door: Door,
        store: JobStore,
        *,
        make_request: MakeRequest,
        read_progress: ReadProgress,
        read_result: ReadResult,
    ) -> None:
        self._door = door
        self._store = store
        self._make_request = make_request
        self._read_progress = read_progress
        self._read_result = read_result
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakeup = asyncio.Event()
        self.feeds: dict[str, Feed] = {}
        self.is_stopping = False

    def wake(self) -> None:
        """There is a new job."""
        self._wakeup.set()

    def cancel(self, job: Job) -> None:
        """End a job that has not ended."""
        if self._store.end(job.id, "cancelled", None):
            task = self._tasks.get(job.id)
            if task is not None:
                task.cancel()
            self._tell(job.id)

    async def run(self) -> None:
        """Start jobs as there is room for them."""
        settings = self._door.settings.jobs
        while not self.is_stopping:
            self._wakeup.clear()
            wait_seconds = SWEEP_SECONDS
            try:
                self._store.remove_old(settings.kept_seconds)
                while len(self._tasks) < settings.at_once:
                    job = self._store.start_next()
                    if job is None:
                        break
                    self.feeds[job.id] = Feed()
                    self._tasks[job.id] = asyncio.create_task(self._work(job))
            except Unavailable as error:
                _log.warning("no job is started: %s", error.message)
                wait_seconds = RETRY_SECONDS
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), wait_seconds)

    async def stop(self) -> None:
        """Give running jobs back to the queue, and end the feeds."""
        self.is_stopping = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for feed in self.feeds.values():
            feed.tell()
        self.wake()

    async def _work(self, job: Job) -> None:
        state: State
        try:
            try:
                # Once for a job, however often it is tried.
                with self._door.job(job.caller, job.request.get("traceparent")) as asked:
                    state, result = "succeeded", await self._answer_patiently(job, asked)
            except Exception as error:
                problem = told(error)
                state, result = "failed", {"code": problem.grpc_code, "detail": problem.message}
            await self._end(job.id, state, result)
        except asyncio.CancelledError:
            # Cancelled by its caller, the row says so already. What cannot be written now is
            # queued again by the next start.
            with suppress(Unavailable):
                self._store.queue_again(job.id)
        finally:
            del self._tasks[job.id]
            self._tell(job.id)
            self.feeds.pop(job.id, None)
            self.wake()

    async def _end(self, identifier: str, state: State, result: dict[str, Any]) -> None:
        """Write a job's end, once there is room for it."""
        while (error := self._try_to_end(identifier, state, result)) is not None:
            _log.warning("job %s has ended, and waits: %s", identifier, error.message)
            await asyncio.sleep(RETRY_SECONDS)

    def _try_to_end(
        self, identifier: str, state: State, result: dict[str, Any]
    ) -> Unavailable | None:
        try:
            self._store.end(identifier, state, result)
        except Unavailable as error:
            return error
        return None

    async def _answer_patiently(self, job: Job, asked: Asked) -> dict[str, Any]:
        deadline = time.monotonic() + self._door.settings.requests.max_seconds
        while True:
            outcome = await self._try(job, asked)
            if not isinstance(outcome, Unavailable):
                return outcome
            seconds = outcome.retry_after_seconds or RETRY_SECONDS
            if time.monotonic() + seconds > deadline:
                raise outcome
            _log.info("job %s waits %.1f s: %s", job.id, seconds, outcome.message)
            await asyncio.sleep(seconds)

    async def _try(self, job: Job, asked: Asked) -> dict[str, Any] | Unavailable:
        try:
            return await self._answer(job, asked)
        except Unavailable as error:
            return error

    async def _answer(self, job: Job, asked: Asked) -> dict[str, Any]:
        door = self._door
        request = self._make_request(job.request)
        request.id = job.id
        request.model_name += STREAM_SUFFIX
        request.outputs.add(name="progress")
        result = None
        async with (
            self._video(job) as spooled,
            door.prepare(asked, request, spooled) as prepared,
            aclosing(door.stream(prepared, door.settings.requests.max_seconds)) as responses,
        ):
            async for response in responses:
                progress = self._read_progress(response)
                if progress is not None:
                    self._progress(job.id, progress)
                elif response.outputs:
                    result = self._read_result(response)
        if result is None:
            raise Internal("the stream of a job ended without an answer")
        return result

    @asynccontextmanager
    async def _video(self, job: Job) -> AsyncIterator[SpooledFile | None]:
        """The job's video under a second name in the spool, which the pipeline can read."""
        if not job.request["has_video"]:
            yield None
            return
        path: Path = self._door.spool.folder / secrets.token_hex(16)
        try:
            os.link(self._store.video_of(job.id), path)
        except FileNotFoundError:
            raise NotFound("the job's video is not there any more") from None
        try:
            yield SpooledFile(path, path.stat().st_size, "")
        finally:
            path.unlink(missing_ok=True)

    def _progress(self, identifier: str, progress: Progress) -> None:
        feed = self.feeds[identifier]
        feed.done_seconds, feed.total_seconds = progress.done_seconds, progress.total_seconds
        feed.segments.update(dict.fromkeys(progress.segments))
        feed.tell()

    def _tell(self, identifier: str) -> None:
        feed = self.feeds.get(identifier)
        if feed is not None:
            feed.tell()
