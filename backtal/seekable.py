"""A file of known length whose bytes come from elsewhere: where it is, and how it moves."""

from __future__ import annotations

import io


class Seekable(io.RawIOBase):
    """The position in `num_bytes` that can be read; a subclass reads, and moves it on."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move there; nothing is read. The new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position
