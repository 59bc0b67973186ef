"""Videos: open, validate, decode in bounded windows, with presentation times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backtal.errors import InvalidArgument
from backtal.video.limits import VideoLimits
from backtal.video.scaling import RESIZER
from backtal.video.source import RangeReader, Source, open_source
from backtal.video.window import DecodeReport, Video, VideoDescription, Window

if TYPE_CHECKING:
    from backtal.video.sandbox import DecoderPool

DecoderName = Literal["pyav", "decord"]

__all__ = [
    "RESIZER",
    "DecodeReport",
    "DecoderName",
    "RangeReader",
    "Source",
    "Video",
    "VideoDescription",
    "VideoLimits",
    "Window",
    "open_video",
]


def open_video(
    source: Path | bytes | RangeReader | Source,
    limits: VideoLimits | None = None,
    *,
    decoder: DecoderName = "pyav",
    threads: int | None = None,
    pool: DecoderPool | None = None,
) -> Video:
    """Open a file, the bytes of one, a remote object, or one of these that is a `Source` already.
    Close it when done.

    With a `pool` the bytes are opened in one of its children and nowhere else: so it must be for
    what is not trusted. `decord`, an extra, gives the same pixels; it is for local files that are
    trusted.

    Raises NotFound; InvalidVideo (empty, not a video, no video stream); LimitExceeded;
    MissingDependency; Unavailable where the pool is full.
    """
    limits = limits or VideoLimits()
    if decoder not in ("pyav", "decord"):
        raise InvalidArgument(f"decoder is {decoder!r}, allowed are 'pyav' and 'decord'")
    opened = source if isinstance(source, Source) else open_source(source, limits)
    try:
        # Imported here: `import backtal` must not load a decoder.
        if decoder == "decord":
            if not isinstance(source, Path):
                raise InvalidArgument("decord reads files that are trusted, by path: use pyav")
            from backtal.video.decord import DecordVideo

            return DecordVideo(opened, source, limits, threads)
        if pool is not None:
            return pool.open(opened, limits)
        if opened.remote is not None:
            raise InvalidArgument(f"{opened.name}: a remote object is decoded in a pool only")
        from backtal.video.pyav import PyavVideo

        return PyavVideo(opened, limits, threads)
    except BaseException:
        opened.close()
        raise
