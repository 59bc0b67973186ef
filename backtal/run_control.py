"""What a run tells its caller while it works, and how the caller stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backtal.errors import Cancelled, DeadlineExceeded
from backtal.segments import Segment


@dataclass(frozen=True)
class Progress:
    """How far into the video a run is, and the segments that became final since the last word."""

    done_seconds: float
    total_seconds: float
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class StageTime:
    """When a stage first began and last ended, by `time.monotonic`, and the seconds it worked.

    Stages take turns batch by batch, so that `seconds` is less than the span between the two.
    """

    started: float
    ended: float
    seconds: float

    def plus(self, other: StageTime) -> StageTime:
        """Both together."""
        return StageTime(
            min(self.started, other.started),
            max(self.ended, other.ended),
            self.seconds + other.seconds,
        )


@dataclass
class RunControl:
    """The caller's two hooks, how long a run may take, and its clock: each stage's time."""

    is_cancelled: Callable[[], bool] = lambda: False
    on_progress: Callable[[Progress], None] = lambda _: None
    max_seconds: float | None = None
    stages: dict[str, StageTime] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """The seconds that each stage worked."""
        return {name: stage.seconds for name, stage in self.stages.items()}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        started = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self.add(stage, StageTime(started, ended, ended - started))

    def add(self, stage: str, spent: StageTime) -> None:
        """Add time to `stage`."""
        before = self.stages.get(stage)
        self.stages[stage] = spent if before is None else before.plus(spent)

    def check_cancelled(self) -> None:
        """Raise Cancelled where the caller has given up, DeadlineExceeded past `max_seconds`."""
        if self.is_cancelled():
            raise Cancelled("the request was given up by its caller")
        if self.max_seconds is not None and time.monotonic() - self.started > self.max_seconds:
            raise DeadlineExceeded(
                f"the request takes longer than the {self.max_seconds:g} s that are allowed"
            )
