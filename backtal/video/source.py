"""A video as an open file descriptor, whether it came as a path or as bytes.

FFmpeg is handed a descriptor and may use nothing else: with a name or a Python file object, a
hostile file can have a demuxer open its neighbours or the network.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Protocol

from backtal.errors import InvalidVideo, NotFound
from backtal.video.limits import VideoLimits


class RangeReader(Protocol):
    """A remote object that is read by parts; `name` is for messages.

    version: tells its content from any other, by its place and what its store says of it; None
    where that says too little.
    """

    name: str
    num_bytes: int
    version: str | None

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """`num_bytes` from `offset` on, fewer at the end only. Raises BacktalError."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True)
class Source:
    """An open, regular, non-empty file; `name` is for messages.

    Where there is no descriptor, it is a remote object: `remote` on the side that can reach it,
    `file` on the side that decodes.
    """

    name: str
    descriptor: int | None
    num_bytes: int
    file: RawIOBase | None = None
    remote: RangeReader | None = None

    def close(self) -> None:
        """Close the descriptor, or the remote object."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        if self.remote is not None:
            self.remote.close()


def open_source(source: Path | bytes | RangeReader, limits: VideoLimits) -> Source:
    """Open a path, bytes as an unnamed file, or a remote object, which is then ours to close.

    Raises NotFound, InvalidVideo (empty, a folder, a device, not readable), LimitExceeded.
    """
    if not isinstance(source, (bytes, Path)):
        try:
            _check_size(source.name, source.num_bytes, limits)
        except BaseException:
            source.close()
            raise
        return Source(source.name, None, source.num_bytes, remote=source)
    if isinstance(source, bytes):
        name, size = "video", len(source)
        _check_size(name, size, limits)
        return Source(name, _spool(source), size)
    name = str(source)
    descriptor = _open(source)
    status = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise InvalidVideo(f"{name} is no regular file")
        _check_size(name, status.st_size, limits)
    except BaseException:
        os.close(descriptor)
        raise
    return Source(name, descriptor, status.st_size)


def _open(path: Path) -> int:
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise InvalidVideo(f"{path} cannot be opened: {error}") from None


def _check_size(name: str, num_bytes: int, limits: VideoLimits) -> None:
    if num_bytes == 0:
        raise InvalidVideo(f"{name} is empty: 0 bytes")
    limits.check_bytes(name, num_bytes)


def _spool(data: bytes) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("video")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
