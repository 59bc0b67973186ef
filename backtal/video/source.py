"""A video as an open file descriptor, whether it came as a path or as bytes.

FFmpeg is handed a descriptor and may use nothing else: with a name or a Python file object, a
hostile file can have a demuxer open its neighbours or the network.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import InvalidVideo, NotFound
from backtal.video.limits import VideoLimits


@dataclass(frozen=True)
class Source:
    """An open, regular, non-empty file; `name` is for messages."""

    name: str
    descriptor: int
    num_bytes: int

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def open_source(source: Path | bytes, limits: VideoLimits) -> Source:
    """Open a path, or bytes as an unnamed file.

    Raises NotFound, InvalidVideo (empty, a folder, a device, not readable), LimitExceeded.
    """
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
