"""`process_shard`: from some planned videos to their rows, written as one file.

It is all that a worker does, under whichever engine. What it is given is data and an `Answerer`;
what it changes is the index, by one `PartLog.append`. So it can be killed at any moment and done
again, by anybody.
"""

from __future__ import annotations

import faulthandler
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from backtal_indexing.answering import Answerer, has_no_turn
from backtal_indexing.identity import Seen, is_still, look
from backtal_indexing.layout import Index
from backtal_indexing.part_log import PartLog
from backtal_indexing.planning import PlannedVideo, Shard
from backtal_indexing.schema import NOT_DONE, SETTLED
from backtal_indexing.video_rows import (
    Row,
    row_of_deleted,
    row_of_done,
    row_of_failure,
    row_of_verdict,
)

POLL_SECONDS = 1.0
MAX_WAIT_SECONDS = 30.0
MAX_FAILURES_TOLD = 5


@dataclass(frozen=True)
class Rules:
    """How videos are tried.

    timeout_seconds: for each attempt, and to wait for a turn. grace_seconds: after so much more a
    worker that is stuck where no timeout of Python reaches it ends itself. max_attempts: in one
    run, until a video is quarantined. patience_seconds: how long a service that is not ready is
    waited for.
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

    def row(self, video: PlannedVideo) -> Row | None:
        """A video's row; None where there is nothing to write."""
        if video.is_deleted:
            return self._ended(row_of_deleted(video))
        started_at = _now()
        seen = self._look(video)
        if isinstance(seen, BacktalError):
            is_gone = isinstance(seen, NotFound) and video.known_status == "done"
            failed = row_of_failure(video, None, self._bundle_sha256, seen)
            row = row_of_deleted(video) if is_gone else {**failed, "attempts": 1}
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

    def _answered(self, video: PlannedVideo, seen: Seen) -> Row:
        """The row of a video that is tried as often as the rules say."""
        before = self._attempts_before(video, seen)
        verdict = self._shard.verdict
        if verdict is not None:
            row = row_of_verdict(video, seen, self._bundle_sha256, verdict)
            return {**row, "attempts": before + self._shard.crashes}
        num_tried = self._shard.crashes
        until = time.monotonic() + self._rules.timeout_seconds
        while True:
            num_tried += 1
            try:
                with self._watched():
                    answer = self._answerer.answer(video.uri, self._rules.timeout_seconds)
                self._check_bundle(answer)
                if is_still(video.uri, seen):
                    self.report.video_seconds += answer.duration_seconds
                    row = row_of_done(video, seen, self._bundle_sha256, answer)
                    return {**row, "attempts": before + num_tried}
                error: BacktalError = Unavailable("it changed while it was read")
                seen = look(video.uri)
            except RunEnds:
                raise
            except Unauthenticated as refused:
                raise RunEnds(refused.message) from None
            except BacktalError as failed:
                error = failed
            if self._has_waited(error, until):
                num_tried -= 1
                continue
            if isinstance(error, InvalidArgument) or num_tried >= self._rules.max_attempts:
                row = row_of_failure(video, seen, self._bundle_sha256, error)
                return {**row, "attempts": before + num_tried}
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

    def _has_waited(self, error: BacktalError, until: float) -> bool:
        """Whether the trouble was the service's, and its turn or its return has been waited for."""
        if isinstance(error, Unavailable) and not self._answerer.is_ready():
            self._wait_for_service(error)
            return True
        if not has_no_turn(error) or time.monotonic() > until:
            return False
        seconds = min(error.retry_after_seconds or POLL_SECONDS, MAX_WAIT_SECONDS)
        # Those who were refused together are not to come back together.
        time.sleep(seconds * random.uniform(1.0, 1.5))
        return True

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

    def _ended(self, row: Row) -> Row:
        self.report.num_videos[row["status"]] += 1
        if row["status"] in NOT_DONE and len(self.report.failures) < MAX_FAILURES_TOLD:
            failure = VideoFailure(row["uri"], row["status"], row["error"])
            self.report.failures.append(failure)
        return {**row, "finished_at": _now()}


def _now() -> datetime:
    return datetime.now(timezone.utc)
