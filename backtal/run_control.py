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


@dataclass
class RunControl:
    """The caller's two hooks, how long a run may take, and its clock: seconds spent by stage."""

    is_cancelled: Callable[[], bool] = lambda: False
    on_progress: Callable[[Progress], None] = lambda _: None
    max_seconds: float | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add_seconds(stage, time.monotonic() - started)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add time that was measured elsewhere."""
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds

    def check_cancelled(self) -> None:
        """Raise Cancelled where the caller has given up, DeadlineExceeded past `max_seconds`."""
        if self.is_cancelled():
            raise Cancelled("the request was given up by its caller")
        if self.max_seconds is not None and time.monotonic() - self.started > self.max_seconds:
            raise DeadlineExceeded(
                f"the request takes longer than the {self.max_seconds:g} s that are allowed"
            )
