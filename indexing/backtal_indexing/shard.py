"""`process_shard`: from some planned videos to their rows, written as one file.

It is all that a worker does, under whichever engine. What it is given is data and an `Answerer`;
what it changes is the index, by one `PartLog.append`. So it can be killed at any moment and done
again, by anybody.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from backtal_indexing.answering import Answerer
from backtal_indexing.identity import UNKNOWN, Seen, is_still, look
from backtal_indexing.layout import Index
from backtal_indexing.part_log import PartLog
from backtal_indexing.planning import PlannedVideo, Shard, Verdict
from backtal_indexing.schema import NOT_DONE, SETTLED

DECLARED = ("codec", "width", "height", "frames_per_second")
# The next run may find it otherwise. INTERNAL and DEADLINE_EXCEEDED come back with the same video.
NOT_THE_VIDEOS_FAULT = (NotFound, PermissionDenied, ResourceExhausted, Unavailable)
POLL_SECONDS = 1.0
MAX_FAILURES_TOLD = 5


@dataclass(frozen=True)
class Rules:
    """How videos are tried.

    timeout_seconds: for each attempt. grace_seconds: after so much more a worker that is stuck
    where no timeout of Python reaches it ends itself. max_attempts: in one run, until a video is
    quarantined. patience_seconds: how long a service that is not ready is waited for.
    """

    timeout_seconds: float = 3600.0
    grace_seconds: float = 5.0
    max_attempts: int = 3
    patience_seconds: float = 300.0


@dataclass(frozen=True)
class VideoFailure:
    """A video that was not answered, for the log."""

    uri: str
    status: str
    error: str


@dataclass
class ShardReport:
    """What became of a shard: videos by status (or "unchanged"), and seconds of video."""

    num_videos: Counter[str] = field(default_factory=Counter)
    video_seconds: float = 0.0
    num_retries: int = 0
    failures: list[VideoFailure] = field(default_factory=list)


class RunEnds(BacktalError):
    """What no other video would escape: the run ends, and goes on when it is started again."""


class BundleChanged(RunEnds):
    """The service answers with another bundle than the run was planned for."""


def process_shard(
    shard: Shard, index: Index, answerer: Answerer, bundle_sha256: str, rules: Rules
) -> ShardReport:
    """Answer a shard's videos and append their rows, but for those that another run has written.

    Raises RunEnds and its kinds; Unavailable, PermissionDenied where the index cannot be used.
    """
    log = PartLog(index, shard.part, shard.generation)
    log.catch_up()
    worker = _Worker(shard, answerer, bundle_sha256, rules, log)
    rows = [row for video in shard.videos if (row := worker.row(video)) is not None]
    log.append(rows)
    return worker.report


class _Worker:
    """Answers the videos of one shard."""

    def __init__(
        self, shard: Shard, answerer: Answerer, bundle_sha256: str, rules: Rules, log: PartLog
    ) -> None:
        self._shard = shard
        self._answerer = answerer
        self._bundle_sha256 = bundle_sha256
        self._rules = rules
        self._news = log.news
        self.report = ShardReport()

    def row(self, video: PlannedVideo) -> dict[str, Any] | None:
        """A video's row; None where there is nothing to write."""
        if video.is_deleted:
            return self._ended(_row_of_deleted(video))
        started_at = _now()
        seen = self._look(video)
        if isinstance(seen, BacktalError):
            is_gone = isinstance(seen, NotFound) and video.known_status == "done"
            row = _row_of_deleted(video) if is_gone else self._failed(video, None, seen, 1)
        elif self._is_known(video, seen):
            self.report.num_videos["unchanged"] += 1
            return None
        else:
            row = self._answered(video, seen)
        return self._ended({**row, "started_at": started_at})

    def _look(self, video: PlannedVideo) -> Seen | BacktalError:
        # What a listing says of an object is as good as a look; a file is hashed here.
        if video.identity is not None:
            return Seen(video.identity)
        try:
            with self._watched():
                return look(video.uri)
        except BacktalError as error:
            return error

    def _is_known(self, video: PlannedVideo, seen: Seen) -> bool:
        """Whether the video as it is now needs no work: by the plan, or by another run since."""
        mine = (seen.identity, self._bundle_sha256)
        if video.known_status in SETTLED and mine == (video.known_identity, video.known_sha256):
            return True
        news = self._news.get((video.uri, video.bundle))
        return (
            news is not None
            and news.status in SETTLED
            and mine == (news.identity, news.bundle_sha256)
        )

    def _answered(self, video: PlannedVideo, seen: Seen) -> dict[str, Any]:
        """The row of a video that is tried as often as the rules say."""
        before = self._attempts_before(video, seen)
        verdict = self._shard.verdict
        if verdict is not None:
            attempts = before + self._shard.crashes
            return self._row(video, seen, attempts, status="quarantined", **verdict.as_columns())
        num_tried = self._shard.crashes
        while True:
            num_tried += 1
            try:
                with self._watched():
                    answer = self._answerer.answer(video.uri, self._rules.timeout_seconds)
                self._check_bundle(answer)
                if is_still(video.uri, seen):
                    return self._done(video, seen, answer, before + num_tried)
                error: BacktalError = Unavailable("it changed while it was read")
                seen = look(video.uri)
            except RunEnds:
                raise
            except Unauthenticated as refused:
                raise RunEnds(refused.message) from None
            except BacktalError as failed:
                error = failed
            if isinstance(error, Unavailable) and not self._answerer.is_ready():
                self._wait_for_service(error)
                num_tried -= 1
                continue
            if isinstance(error, InvalidArgument) or num_tried >= self._rules.max_attempts:
                return self._failed(video, seen, error, before + num_tried)
            self.report.num_retries += 1

    def _attempts_before(self, video: PlannedVideo, seen: Seen) -> int:
        is_same = (video.known_identity, video.known_sha256) == (seen.identity, self._bundle_sha256)
        return video.known_attempts if is_same and video.known_status == "failed" else 0

    def _check_bundle(self, answer: DetectionAnswer) -> None:
        found = answer.provenance.get("bundle_sha256")
        if found != self._bundle_sha256:
            raise BundleChanged(
                f"the service answers with bundle {str(found)[:12]}, the run began with "
                f"{self._bundle_sha256[:12]}: start it again, for the new one"
            )

    def _wait_for_service(self, error: BacktalError) -> None:
        deadline = time.monotonic() + self._rules.patience_seconds
        while not self._answerer.is_ready():
            if time.monotonic() > deadline:
                raise RunEnds(
                    f"the service was not ready for {self._rules.patience_seconds:g} s "
                    f"({error.message}): start the run again when it is"
                )
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process where the block takes so long that no timeout of its own has worked.

        By a thread of C, which a block that holds the interpreter's lock does not stop.
        """
        seconds = self._rules.timeout_seconds + self._rules.grace_seconds
        with Path(os.devnull).open("w") as nowhere:
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()

    def _done(
        self, video: PlannedVideo, seen: Seen, answer: DetectionAnswer, attempts: int
    ) -> dict[str, Any]:
        provenance = answer.provenance
        declared = provenance.get("video") or {}
        self.report.video_seconds += answer.duration_seconds
        return self._row(
            video,
            seen,
            attempts,
            status="done",
            duration_seconds=answer.duration_seconds,
            num_frames_decoded=provenance.get("num_frames_decoded"),
            warnings=list(answer.warnings),
            segments=[vars(segment) for segment in answer.segments],
            **{name: declared.get(name) for name in DECLARED},
        )

    def _failed(
        self, video: PlannedVideo, seen: Seen | None, error: BacktalError, attempts: int
    ) -> dict[str, Any]:
        status = "failed" if isinstance(error, NOT_THE_VIDEOS_FAULT) else "quarantined"
        verdict = Verdict(error.grpc_code, error.message)
        return self._row(video, seen, attempts, status=status, **verdict.as_columns())

    def _row(
        self, video: PlannedVideo, seen: Seen | None, attempts: int, **columns: Any
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "uri": video.uri,
            "bundle": video.bundle,
            "identity": UNKNOWN if seen is None else seen.identity,
            "stamp": None if seen is None else seen.kept_stamp,
            "bundle_sha256": self._bundle_sha256,
            "attempts": attempts,
            "warnings": [],
            "segments": [],
        }
        return {**row, **columns}

    def _ended(self, row: dict[str, Any]) -> dict[str, Any]:
        self.report.num_videos[row["status"]] += 1
        if row["status"] in NOT_DONE and len(self.report.failures) < MAX_FAILURES_TOLD:
            failure = VideoFailure(row["uri"], row["status"], row["error"])
            self.report.failures.append(failure)
        return {**row, "finished_at": _now()}


def _row_of_deleted(video: PlannedVideo) -> dict[str, Any]:
    return {
        "uri": video.uri,
        "bundle": video.bundle,
        "identity": video.known_identity,
        "stamp": None,
        "bundle_sha256": video.known_sha256,
        "status": "deleted",
        "attempts": 0,
        "warnings": [],
        "segments": [],
    }


def _now() -> datetime:
    return datetime.now(timezone.utc)
