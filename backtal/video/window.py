"""What a decoder gives: a description of the video, then windows of frames, then a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backtal.manifest import ClipPlan


@dataclass(frozen=True)
class VideoDescription:
    """What a file declares about its video stream; None where it says nothing.

    width, height: pixels as they are coded, before rotation and sample aspect ratio.
    """

    name: str
    num_bytes: int
    container: str
    codec: str
    width: int
    height: int
    sample_aspect_ratio: Fraction
    duration_seconds: float | None
    num_frames: int | None
    frames_per_second: float | None


@dataclass(frozen=True, eq=False)
class Window:
    """Frames held at once.

    presentation_seconds: float64 [n], rising; the first frame shown of a video is at 0.
    frames: uint8 [n, H, W, 3], RGB, scaled, upright and cropped by the clip plan.
    end_seconds: until then the last frame is on show. Frames that are on show at no tick of the
    plan may be left out.
    """

    presentation_seconds: NDArray[np.float64]
    frames: NDArray[np.uint8]
    end_seconds: float


@dataclass(frozen=True)
class DecodeReport:
    """What decoding found: the frames there were, when the last one ends, what was amiss."""

    num_frames: int
    duration_seconds: float
    warnings: tuple[str, ...]


class Video(Protocol):
    """An open video. A decoder in another process can stand behind this as well as one in ours."""

    @property
    def description(self) -> VideoDescription:
        """What the file declares."""
        ...

    def windows(
        self, plan: ClipPlan, *, window_frames: int = 64, allow_partial: bool = False
    ) -> Iterator[Window]:
        """Decode from the start, `window_frames` at a time; once for each open video.

        Raises InvalidVideo where the file does not decode to what it declares, unless
        `allow_partial`: then the report has a warning. Raises LimitExceeded.
        """
        ...

    @property
    def report(self) -> DecodeReport:
        """What was found, once the windows are exhausted."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
