"""All that a server bounds, in one place. Each limit has its error, which names it."""

from __future__ import annotations

from pydantic import Field

from backtal.settings import Settings
from backtal.video.limits import VideoLimits
from backtal.video.sandbox import DecodeSettings


class RequestLimits(Settings):
    """How much a bundle takes on. What is beyond is answered UNAVAILABLE at once."""

    at_once: int = Field(
        default=2, ge=1, le=64, description="requests that a bundle's model works on"
    )
    queued: int = Field(default=64, ge=1, description="requests that wait for it, in all")
    max_seconds: float = Field(
        default=4 * 3600.0, gt=0, description="of work on one; then DEADLINE_EXCEEDED"
    )


class Limits(Settings):
    """What a video may be, what decoding it may take, and how many requests are taken on."""

    video: VideoLimits = VideoLimits()
    decode: DecodeSettings = DecodeSettings()
    requests: RequestLimits = RequestLimits()
    versions: int = Field(
        default=1, ge=1, le=16, description="of each bundle: so many of the newest are served"
    )
