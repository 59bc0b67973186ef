"""What a file declares, as plain fields that can be written down and read again."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, TypeVar

from pydantic import Field

from backtal.settings import Settings
from backtal.video.window import VideoDescription

MAX_TEXT = 2000
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Fields = TypeVar("Fields", bound="DeclaredFields")


class DeclaredFields(Settings):
    """See `VideoDescription`; its name and its size are whose the file is to tell."""

    container: Text
    codec: Text
    width: int
    height: int
    sample_aspect_ratio: tuple[int, Annotated[int, Field(ge=1)]]
    duration_seconds: float | None
    num_frames: int | None
    frames_per_second: float | None

    @classmethod
    def of(cls: type[Fields], about: VideoDescription) -> Fields:
        """The fields of a description."""
        return cls(
            container=about.container[:MAX_TEXT],
            codec=about.codec[:MAX_TEXT],
            width=about.width,
            height=about.height,
            sample_aspect_ratio=about.sample_aspect_ratio.as_integer_ratio(),
            duration_seconds=about.duration_seconds,
            num_frames=about.num_frames,
            frames_per_second=about.frames_per_second,
        )

    def description(self, name: str, num_bytes: int) -> VideoDescription:
        """The description, of a file that we know better than it does."""
        return VideoDescription(
            name=name,
            num_bytes=num_bytes,
            container=self.container,
            codec=self.codec,
            width=self.width,
            height=self.height,
            sample_aspect_ratio=Fraction(*self.sample_aspect_ratio),
            duration_seconds=self.duration_seconds,
            num_frames=self.num_frames,
            frames_per_second=self.frames_per_second,
        )
