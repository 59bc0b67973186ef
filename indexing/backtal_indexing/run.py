"""The driver of a run: shards to an engine, reports to those who watch, failures to new attempts.

A shard whose worker died is tried again; if it dies again, its videos one by one, which tells the
one that does it. That one has its attempts and is then quarantined. An error that every video
would meet ends the run: what was written stays, and the next run goes on from there.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

from backtal.errors import BacktalError
from backtal_indexing.engines import Engine, Outcome
from backtal_indexing.planning import Plan, Shard, Verdict
from backtal_indexing.shard import Rules, RunEnds, ShardReport, VideoFailure

CRASHES_OF_A_SHARD = 2
ERRORS_OF_A_SHARD = 3
PAUSE_SECONDS = 2.0
TICK_SECONDS = 0.5


@dataclass
class RunState:
    """How far a run is. num_videos: by status of this run's rows, and "unchanged"."""

    num_to_do: int
    num_shards_left: int
    num_videos: Counter[str] = field(default_factory=Counter)
    video_seconds: float = 0.0
    num_retries: int = 0
    num_in_flight: int = 0
    started: float = field(default_factory=time.time)
    last_progress: float = field(default_factory=time.time)

    def copy(self) -> RunState:
        """It as it is now."""
        return replace(self, num_videos=Counter(self.num_videos))

    @property
    def num_ended(self) -> int:
        """Videos that the run is through with."""
        return sum(self.num_videos.values())

    @property
    def num_left(self) -> int:
        """Videos that it has yet to do."""
        return max(self.num_to_do - self.num_ended, 0)


class Watcher(Protocol):
    """Is told how a run goes."""

    def update(self, state: RunState) -> None:
        """Called after each shard, and about twice a second."""
        ...

    def failed(self, failure: VideoFailure) -> None:
        """Called for videos that were not answered; of a shard with many, for some."""
        ...


class Driver:
    """Drives a plan through an engine."""

    def __init__(
        self, plan: Plan, engine: Engine, rules: Rules, watchers: tuple[Watcher, ...] = ()
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._watchers = watchers
        self._planned: Iterator[Shard] = plan.shards()
        # To be tried again, before what is new.
        self._again: deque[Shard] = deque()
        self._num_errors: Counter[Shard] = Counter()
        self._num_in_flight = 0
        num_to_do = plan.counts.num_to_do + plan.counts.num_deleted
        self.state = RunState(num_to_do, plan.counts.num_shards)

    def run(self) -> RunState:
        """All shards. Raises RunEnds, or the error of an index that cannot be written."""
        with ExitStack() as stack:
            stack.callback(self._engine.stop)
            self._fill()
            while self._num_in_flight:
                outcome = self._engine.wait(TICK_SECONDS)
                if outcome is not None:
                    self._take(outcome)
                self._fill()
                self._tell()
        return self.state

    def _fill(self) -> None:
        while self._num_in_flight < self._engine.max_in_flight:
            shard = self._again.popleft() if self._again else next(self._planned, None)
            if shard is None:
                return
            self._engine.submit(shard)
            self._num_in_flight += 1
            self.state.num_in_flight += len(shard.videos)

    def _take(self, outcome: Outcome) -> None:
        shard = outcome.shard
        self._num_in_flight -= 1
        self.state.num_in_flight -= len(shard.videos)
        if outcome.report is not None:
            self._count(outcome.report)
            self._num_errors.pop(shard, None)
        elif outcome.error is not None:
            self._after_error(shard, outcome.error)
        else:
            self._after_crash(shard, outcome.crash or "")

    def _count(self, report: ShardReport) -> None:
        state = self.state
        state.num_videos.update(report.num_videos)
        state.video_seconds += report.video_seconds
        state.num_retries += report.num_retries
        state.num_shards_left -= 1
        state.last_progress = time.time()
        for failure in report.failures:
            for watcher in self._watchers:
                watcher.failed(failure)

    def _after_error(self, shard: Shard, error: BacktalError) -> None:
        """The index, or the run as a whole, is in trouble: not the videos."""
        self._num_errors[shard] += 1
        if isinstance(error, RunEnds) or self._num_errors[shard] >= ERRORS_OF_A_SHARD:
            raise error
        time.sleep(PAUSE_SECONDS)
        self._again.append(shard)
        self.state.num_retries += 1

    def _after_crash(self, shard: Shard, crash: str) -> None:
        crashed = replace(shard, crashes=shard.crashes + 1)
        self.state.num_retries += 1
        if shard.verdict is not None:
            # Not even looking at the video comes to an end: nothing can be written about it.
            self._count(_lost(shard, crash))
        elif len(shard.videos) > 1 and crashed.crashes < CRASHES_OF_A_SHARD:
            self._again.append(crashed)
        elif len(shard.videos) > 1:
            singles = [replace(shard, videos=(video,), crashes=0) for video in shard.videos]
            self._again.extend(singles)
            self.state.num_shards_left += len(singles) - 1
        elif crashed.crashes < self._rules.max_attempts:
            self._again.append(crashed)
        else:
            told = f"{crash}, {crashed.crashes} times"
            self._again.append(replace(crashed, verdict=Verdict("INTERNAL", told)))

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher.update(self.state)


def _lost(shard: Shard, crash: str) -> ShardReport:
    (video,) = shard.videos
    return ShardReport(
        num_videos=Counter(failed=1), failures=[VideoFailure(video.uri, "failed", crash)]
    )
