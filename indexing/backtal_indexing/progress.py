"""How a run is told: a bar for people or lines of JSON while it goes on, a summary at its end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from backtal_indexing.run import RunState
from backtal_indexing.shard import VideoFailure

EVERY_SECONDS = 5.0
MAX_FAILURES_SHOWN = 50


def figures_of(state: RunState) -> dict[str, Any]:
    """A run in figures: counts, hours of video, how much faster than video it goes."""
    seconds = max(time.time() - state.started, 1e-3)
    num_ended = state.num_ended
    left_seconds = state.num_left * seconds / num_ended if num_ended else None
    return {
        "videos": num_ended,
        "videos_to_do": state.num_to_do,
        **{status: state.num_videos[status] for status in sorted(state.num_videos)},
        "retries": state.num_retries,
        "video_hours": state.video_seconds / 3600,
        "seconds": seconds,
        "videos_per_second": num_ended / seconds,
        "video_seconds_per_second": state.video_seconds / seconds,
        "seconds_left": left_seconds,
    }


class JsonLines:
    """A `Watcher` that writes events to standard error, one JSON object a line."""

    def __init__(self) -> None:
        self._last = 0.0

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write an event."""
        stamp = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": stamp, "event": name, **fields}, ensure_ascii=False)
        print(line, file=sys.stderr, flush=True)

    def update(self, state: RunState) -> None:
        """See `Watcher`."""
        if time.monotonic() - self._last > EVERY_SECONDS:
            self._last = time.monotonic()
            self.event("progress", figures_of(state))

    def failed(self, failure: VideoFailure) -> None:
        """See `Watcher`."""
        self.event("video_failed", vars(failure))

    def summary(self, state: RunState) -> None:
        """How it ended."""
        self.event("summary", figures_of(state))


class ProgressBar:
    """A `Watcher` that draws a bar, on a terminal, and names failures above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._num_shown = 0
        self._progress = Progress(
            TextColumn("indexing"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} videos"),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, told="", start=True)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Tell an event in a line."""
        told = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in fields.items())
        self._console.print(f"{name}: {told}", markup=False)

    def update(self, state: RunState) -> None:
        """See `Watcher`."""
        figures = figures_of(state)
        num_failed = state.num_videos["failed"] + state.num_videos["quarantined"]
        told = f"{figures['video_hours']:.1f} h, {figures['video_seconds_per_second']:.1f}x"
        told += f", {num_failed} not done" if num_failed else ""
        self._progress.update(
            self._task, completed=state.num_ended, total=max(state.num_to_do, 1), told=told
        )

    def failed(self, failure: VideoFailure) -> None:
        """See `Watcher`."""
        self._num_shown += 1
        if self._num_shown <= MAX_FAILURES_SHOWN:
            told = f"{failure.uri}: {failure.status}: {failure.error}"
            self._console.print(told, markup=False, soft_wrap=True)
        elif self._num_shown == MAX_FAILURES_SHOWN + 1:
            self._console.print("more failed: backtal index status INDEX lists them")

    def summary(self, state: RunState) -> None:
        """How it ended, in a line."""
        figures = figures_of(state)
        counts = ", ".join(
            f"{count} {status}" for status, count in sorted(state.num_videos.items()) if count
        )
        self._console.print(
            f"{counts or 'nothing to do'}; {figures['video_hours']:.2f} hours of video in "
            f"{figures['seconds']:.0f} s ({figures['video_seconds_per_second']:.1f} times as fast)",
            markup=False,
        )
