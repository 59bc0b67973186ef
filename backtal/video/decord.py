"""decord behind the same interface, for local files that are trusted: the same pixels.

It ignores edit lists and start offsets, carries an FFmpeg of 2020, and can abort the process on
a damaged file. PyAV still says what the file declares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.clips import needs_frame
from backtal.errors import InvalidVideo, MissingDependency
from backtal.manifest import ClipPlan
from backtal.video.declared import check_span, nothing_decoded
from backtal.video.limits import VideoLimits
from backtal.video.pyav import PyavVideo
from backtal.video.scaling import check_aspect, crop_middle, quarter_turns, upright_size
from backtal.video.source import Source
from backtal.video.window import DecodeReport, VideoDescription, Window


class DecordVideo:
    """A file opened by decord; see `Video`. Raises MissingDependency where it is not installed."""

    def __init__(
        self, source: Source, path: Path, limits: VideoLimits, threads: int | None = None
    ) -> None:
        try:
            import decord
        except ImportError:
            raise MissingDependency(
                "decord is not installed: pip install 'backtal[decord]', or use the decoder pyav"
            ) from None
        self._decord: Any = decord
        self._path = path
        self._limits = limits
        self._threads = threads or 0
        self._declared = PyavVideo(source, limits, threads)
        self._report: DecodeReport | None = None

    @property
    def description(self) -> VideoDescription:
        """What the file declares, as PyAV reads it."""
        return self._declared.description

    @property
    def report(self) -> DecodeReport:
        """What decoding found, once the windows are exhausted."""
        if self._report is None:
            raise RuntimeError("the windows of this video are not exhausted")
        return self._report

    def close(self) -> None:
        """Close the file."""
        self._declared.close()

    def windows(
        self, plan: ClipPlan, *, window_frames: int = 64, allow_partial: bool = False
    ) -> Iterator[Window]:
        """See `Video.windows`."""
        reader = self._reader(plan)
        stamps = reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64)
        starts = stamps[:, 0] - stamps[0, 0]
        end_seconds = float(stamps[-1, 1] - stamps[0, 0])
        self._limits.check_duration(self.description.name, end_seconds)
        ends = np.append(starts[1:], end_seconds)
        for first in range(0, len(starts), window_frames):
            last = min(first + window_frames, len(starts))
            needed = [i for i in range(first, last) if needs_frame(plan, starts[i], ends[i])]
            if needed:
                frames = self._read(reader, needed, plan)
                yield Window(starts[needed], frames, float(ends[last - 1]))
        warnings = check_span(
            self.description,
            end_seconds,
            nominal_frame_seconds=end_seconds / len(starts),
            allow_partial=allow_partial,
        )
        self._report = DecodeReport(len(starts), end_seconds, warnings)

    def _reader(self, plan: ClipPlan) -> Any:
        about = self.description
        # decord turns frames upright before it scales them.
        quarters = quarter_turns(self._declared.first_rotation_degrees())
        size = upright_size(
            about.width,
            about.height,
            about.sample_aspect_ratio,
            quarters,
            plan.short_side_pixels,
        )
        check_aspect(about.name, size, self._limits.max_aspect_ratio)
        try:
            reader = self._decord.VideoReader(
                os.fspath(self._path), width=size[0], height=size[1], num_threads=self._threads
            )
        except (RuntimeError, self._decord.DECORDError) as error:
            raise InvalidVideo(f"{about.name}: decord: {error}") from None
        if len(reader) == 0:
            raise nothing_decoded(about, "decord finds none")
        return reader

    def _read(self, reader: Any, indices: list[int], plan: ClipPlan) -> NDArray[np.uint8]:
        try:
            frames = reader.get_batch(indices).asnumpy()
        except (RuntimeError, self._decord.DECORDError) as error:
            raise InvalidVideo(f"{self.description.name}: decord: {error}") from None
        return np.stack([crop_middle(frame, plan) for frame in frames])
