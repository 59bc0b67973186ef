"""What tells a video's content from any other, so that what was made of it can be found again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from backtal.video.source import Source

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ContentIdentity:
    """`text`: equal for equal content. Of a file it is the hash of its bytes, wherever it lies."""

    text: str
    _state: tuple[int, ...]

    def still_holds(self, source: Source) -> bool:
        """Whether `source`, still open, is as it was: a file may be written to meanwhile."""
        return _state_of(source) == self._state


def content_identity(
    source: Source, before_piece: Callable[[], None] = lambda: None
) -> ContentIdentity | None:
    """The identity of an open source; None for a remote object whose store gives it no version.

    A file is read whole, `before_piece` being called before each mebibyte.
    """
    state = _state_of(source)
    if source.remote is not None:
        version = source.remote.version
        return None if version is None else ContentIdentity(version, state)
    assert source.descriptor is not None
    sha256, offset = hashlib.sha256(), 0
    while True:
        before_piece()
        piece = os.pread(source.descriptor, PIECE_BYTES, offset)
        if not piece:
            return ContentIdentity(f"sha256:{sha256.hexdigest()}", state)
        sha256.update(piece)
        offset += len(piece)


def _state_of(source: Source) -> tuple[int, ...]:
    if source.descriptor is None:
        return (source.num_bytes,)
    status = os.fstat(source.descriptor)
    # The time of change too: its owner can set the other one back.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
