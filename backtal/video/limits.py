"""How large a video may be."""

from __future__ import annotations

from pydantic import Field

from backtal.errors import LimitExceeded
from backtal.settings import Settings

GIBIBYTE = 1 << 30


class VideoLimits(Settings):
    """What is refused before or while it is decoded. The defaults take a 6-hour film and 8K.

    A few bytes can claim hours of one picture, or more streams than there is memory for.
    """

    max_bytes: int = Field(default=8 * GIBIBYTE, ge=1)
    max_duration_seconds: float = Field(default=6 * 3600.0, gt=0)
    max_frames: int = Field(default=6 * 3600 * 120, ge=1)
    max_frame_seconds: float = Field(default=300.0, gt=0, description="one frame on show")
    max_streams: int = Field(default=64, ge=1, description="of all kinds")
    max_pixels: int = Field(default=8192 * 4320, ge=1, description="of one frame")
    max_aspect_ratio: float = Field(default=16.0, ge=1, description="long side / short side")

    def check_bytes(self, name: str, num_bytes: int) -> None:
        """Raise LimitExceeded for a file of more than `max_bytes`."""
        if num_bytes > self.max_bytes:
            raise LimitExceeded(f"{name} has {num_bytes} bytes, allowed are up to {self.max_bytes}")

    def check_duration(self, name: str, seconds: float) -> None:
        """Raise LimitExceeded for a video longer than `max_duration_seconds`."""
        if seconds > self.max_duration_seconds:
            raise LimitExceeded(
                f"{name} is {seconds:.2f} s long, allowed are up to {self.max_duration_seconds:g} s"
            )

    def check_frames(self, name: str, num_frames: int) -> None:
        """Raise LimitExceeded for a video of more than `max_frames`."""
        if num_frames > self.max_frames:
            raise LimitExceeded(
                f"{name} has {num_frames} frames or more, allowed are up to {self.max_frames}"
            )

    def check_frame_seconds(self, name: str, seconds: float) -> None:
        """Raise LimitExceeded for a frame that stays on show longer than `max_frame_seconds`."""
        if seconds > self.max_frame_seconds:
            raise LimitExceeded(
                f"{name} shows one frame for {seconds:.2f} s, "
                f"allowed are up to {self.max_frame_seconds:g} s"
            )

    def check_streams(self, name: str, num_streams: int) -> None:
        """Raise LimitExceeded for a file of more than `max_streams`."""
        if num_streams > self.max_streams:
            raise LimitExceeded(
                f"{name} has {num_streams} streams, allowed are up to {self.max_streams}"
            )

    def check_pixels(self, name: str, width: int, height: int) -> None:
        """Raise LimitExceeded for a frame of more than `max_pixels`."""
        if width * height > self.max_pixels:
            raise LimitExceeded(
                f"{name} has frames of {width}x{height}, {width * height} pixels, "
                f"allowed are up to {self.max_pixels}"
            )
