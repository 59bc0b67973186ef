"""What decoding a whole video found out about it."""

from __future__ import annotations

from dataclasses import dataclass

from backtal.video import VideoDescription


@dataclass(frozen=True)
class Decoded:
    """What decoding found, of the video that `video` describes.

    is_known: the features came from a store, and nothing was decoded this time.
    """

    duration_seconds: float
    num_frames: int
    warnings: tuple[str, ...]
    video: VideoDescription
    is_known: bool = False
