"""An object of a store as a file that is read by parts: for Parquet's readers and for FFmpeg."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from backtal_indexing.store import open_objects, translated

if TYPE_CHECKING:
    from obstore import GetOptions


class RangeFile(io.RawIOBase):
    """The object at `url`, one version of it: where it changes meanwhile, reading is an error.

    Raises NotFound, PermissionDenied, Unavailable, also while it is read.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        folder, _, self._name = url.rpartition("/")
        self._objects = open_objects(folder)
        with translated(url):
            about = self._objects.head(self._name)
        self.num_bytes = int(about["size"])
        self._version = about["e_tag"]
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
        """Move there; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` by one request; fewer bytes only at the end."""
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self.num_bytes)
        if end <= self._position:
            return 0
        options: GetOptions = {"range": (self._position, end)}
        if self._version is not None:
            options["if_match"] = self._version
        with translated(self._url):
            data = memoryview(self._objects.get(self._name, options=options).bytes())
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
