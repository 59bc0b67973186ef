"""A remote object as a file: a child asks the other side for blocks, and keeps the last few."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from backtal.seekable import Seekable

BLOCK_BYTES = 256 * 1024
KEPT_BLOCKS = 16


class RemoteFile(Seekable):
    """Reads by `read_at(offset, num_bytes)`, whole blocks at a time."""

    def __init__(self, read_at: Callable[[int, int], bytes], num_bytes: int) -> None:
        super().__init__(num_bytes)
        self._read_at = read_at
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, to the end of a block at most; b"" at the end."""
        left = self.num_bytes - self._position
        if left <= 0 or size == 0:
            return b""
        number, start = divmod(self._position, BLOCK_BYTES)
        block = self._block(number)
        part = block[start:] if size < 0 else block[start : start + size]
        self._position += len(part)
        return part

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        offset = number * BLOCK_BYTES
        block = self._read_at(offset, min(BLOCK_BYTES, self.num_bytes - offset))
        self._blocks[number] = block
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return block
