"""What every export is made of: a video, what is known of it, and its segments."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from backtal.errors import InvalidArgument
from backtal.segments import Segment
from backtal_indexing.timecode import exact_rate

HASH_DIGITS = 8
# A key of an object may be longer than what a file system takes as a name.
_STEM_BYTES = 160


@dataclass(frozen=True)
class IndexedVideo:
    """A video that a bundle has answered, as the index knows it.

    Attributes:
        uri: where it is.
        bundle: the name of the bundle that found the segments.
        duration_seconds: its length.
        frames_per_second: None where the file does not say.
        width, height: pixels; None where the file does not say.
        segments: in the order in which they are to be written.
    """

    uri: str
    bundle: str
    duration_seconds: float
    frames_per_second: float | None
    width: int | None
    height: int | None
    segments: tuple[Segment, ...]

    @property
    def rate(self) -> Fraction | None:
        """The exact frame rate."""
        return None if self.frames_per_second is None else exact_rate(self.frames_per_second)

    def rate_or(self, chosen: Fraction | None) -> Fraction:
        """The rate to count frames at: `chosen`, else the video's own.

        Raises InvalidArgument where there is neither.
        """
        rate = chosen or self.rate
        if rate is None:
            raise InvalidArgument(
                f"{self.uri}: its file does not say how many frames it has a second; "
                f"choose the rate to count in with --rate"
            )
        return rate

    @property
    def by_start(self) -> tuple[Segment, ...]:
        """The segments by start, the longer first."""
        return tuple(sorted(self.segments, key=lambda one: (one.start_seconds, -one.end_seconds)))


def path_of(uri: str) -> PurePosixPath:
    """The path in a URI, or the path that it is."""
    parts = urlsplit(uri)
    if not parts.scheme:
        return PurePosixPath(uri)
    # The key of an object is not encoded: a `?` or `#` in it is a letter as others are.
    if parts.scheme == "file":
        return PurePosixPath(unquote(parts.path))
    return PurePosixPath(uri.partition("://")[2])


def video_names(uris: Iterable[str]) -> dict[str, str]:
    """A name for each URI: its file's, without the suffix.

    Where several share one, a dash and the start of the URI's SHA-256 are added to each.
    """
    stems = {uri: _shortened(path_of(uri).stem) or "video" for uri in uris}
    counts = Counter(stems.values())
    return {
        uri: stem if counts[stem] == 1 else f"{stem}-{_digest(uri)}" for uri, stem in stems.items()
    }


def named(videos: Sequence[IndexedVideo]) -> list[tuple[str, IndexedVideo]]:
    """Each video with its name among these."""
    names = video_names(video.uri for video in videos)
    return [(names[video.uri], video) for video in videos]


def single_line(text: str) -> str:
    """`text` without line breaks and control characters, for formats that go by lines."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _shortened(stem: str) -> str:
    return stem.encode()[:_STEM_BYTES].decode(errors="ignore")


def _digest(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:HASH_DIGITS]
