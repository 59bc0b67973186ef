"""How large a video may be."""

from __future__ import annotations

from pydantic import Field

from backtal.errors import LimitExceeded
from backtal.settings import Settings

GIBIBYTE = 1 << 30


class VideoLimits(Settings):
    """What is refused before or while it is decoded. The defaults take a 6-hour film and 8K."""

    max_bytes: int = Field(default=8 * GIBIBYTE, ge=1)
    max_duration_seconds: float = Field(default=6 * 3600.0, gt=0)
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

    def check_pixels(self, name: str, width: int, height: int) -> None:
        """Raise LimitExceeded for a frame of more than `max_pixels`."""
        if width * height > self.max_pixels:
            raise LimitExceeded(
                f"{name} has frames of {width}x{height}, {width * height} pixels, "
                f"allowed are up to {self.max_pixels}"
            )
