"""Videos: open, validate, decode in bounded windows, with presentation times."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from backtal.errors import InvalidArgument
from backtal.video.limits import VideoLimits
from backtal.video.scaling import RESIZER
from backtal.video.source import open_source
from backtal.video.window import DecodeReport, Video, VideoDescription, Window

DecoderName = Literal["pyav", "decord"]

__all__ = [
    "RESIZER",
    "DecodeReport",
    "DecoderName",
    "Video",
    "VideoDescription",
    "VideoLimits",
    "Window",
    "open_video",
]


def open_video(
    source: Path | bytes,
    limits: VideoLimits | None = None,
    *,
    decoder: DecoderName = "pyav",
    threads: int | None = None,
) -> Video:
    """Open a file, or the bytes of one. Close it when done.

    `decord`, an extra, gives the same pixels; it is for local files that are trusted.

    Raises NotFound; InvalidVideo (empty, not a video, no video stream); LimitExceeded;
    MissingDependency.
    """
    limits = limits or VideoLimits()
    opened = open_source(source, limits)
    try:
        # Imported here: `import backtal` must not load a decoder.
        if decoder == "pyav":
            from backtal.video.pyav import PyavVideo

            return PyavVideo(opened, limits, threads)
        if decoder == "decord":
            from backtal.video.decord import DecordVideo

            return DecordVideo(opened, source, limits, threads)
    except BaseException:
        opened.close()
        raise
    opened.close()
    raise InvalidArgument(f"decoder is {decoder!r}, allowed are 'pyav' and 'decord'")
