"""An object of a store as a file that is read by parts: for Parquet's readers and for FFmpeg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtal.seekable import Seekable
from backtal_indexing.store import open_objects, translated

if TYPE_CHECKING:
    from obstore import GetOptions

BLOCK_BYTES = 1 << 18


class RangeFile(Seekable):
    """The object at `url`, one version of it: where it changes meanwhile, reading is an error.

    At least `block_bytes` are fetched at a time, and kept until others are asked for. Raises
    NotFound, PermissionDenied, Unavailable, also while it is read.
    """

    def __init__(self, url: str, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._url = url
        folder, _, self._name = url.rpartition("/")
        self._objects = open_objects(folder)
        with translated(url):
            about = self._objects.head(self._name)
        super().__init__(int(about["size"]))
        self._version = about["e_tag"]
        self._block_bytes = block_bytes
        self._block_start = 0
        self._block = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; fewer bytes only at the end, or where a kept block ends."""
        view = memoryview(buffer).cast("B")
        if not view or self._position >= self.num_bytes:
            return 0
        inside = self._position - self._block_start
        if not 0 <= inside < len(self._block):
            self._fetch(max(len(view), self._block_bytes))
            inside = 0
        data = self._block[inside : inside + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, num_bytes: int) -> None:
        end = min(self._position + num_bytes, self.num_bytes)
        options: GetOptions = {"range": (self._position, end)}
        if self._version is not None:
            options["if_match"] = self._version
        with translated(self._url):
            self._block = memoryview(self._objects.get(self._name, options=options).bytes())
        self._block_start = self._position
