"""One video's features as a file: the clips float32 [N, D] as they came, what decoding found as
JSON, and a trailer with the hash of both.

It is written beside its place and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from types import TracebackType
from typing import BinaryIO

import numpy as np
from pydantic import Field

from backtal.decoded import Decoded
from backtal.errors import InvalidFile, Unavailable
from backtal.features import FloatArray
from backtal.settings import Settings, parse
from backtal.video.declared_fields import DeclaredFields

SUFFIX = ".features"
TEMPORARY_SUFFIX = ".part"
PIECE_BYTES = 1 << 20
CLIPS_PER_READ = 256
_TRAILER = struct.Struct("<8sQ32s")
_MAGIC = b"BTFEAT01"

_log = logging.getLogger(__name__)


class _About(Settings):
    """An entry's JSON."""

    key: str
    feature_dim: int = Field(ge=1)
    num_clips: int = Field(ge=1)
    duration_seconds: float = Field(gt=0)
    num_frames: int = Field(ge=0)
    warnings: tuple[str, ...]
    num_bytes: int
    video: DeclaredFields


class StoredFeatures:
    """An open entry, found whole. A context manager."""

    def __init__(self, path: Path, key: str) -> None:
        """Raises FileNotFoundError; InvalidFile for what is not as it was written; OSError."""
        self._path = path
        file = path.open("rb")
        try:
            about = _verified(file, key)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._about = about

    def __enter__(self) -> StoredFeatures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def decoded_as(self, name: str) -> Decoded:
        """What decoding found, of the video that is called `name` this time."""
        about = self._about
        video = about.video.description(name, about.num_bytes)
        return Decoded(about.duration_seconds, about.num_frames, about.warnings, video, True)

    def batches(self) -> Iterator[FloatArray]:
        """The features [D, n] of the clips in their order, some hundred at a time.

        Raises Unavailable where the disk fails now; the entry is then gone, and asking again helps.
        """
        left, dim = self._about.num_clips, self._about.feature_dim
        self._file.seek(0)
        while left:
            num_clips = min(left, CLIPS_PER_READ)
            try:
                data = self._file.read(4 * dim * num_clips)
                rows = np.frombuffer(data, "<f4").reshape(num_clips, dim)
            except (OSError, ValueError) as error:
                remove(self._path)
                raise Unavailable(
                    f"stored features cannot be read: {error}", retry_after_seconds=1.0
                ) from None
            left -= num_clips
            yield np.ascontiguousarray(rows.T, np.float32)


class EntryWriter:
    """Writes one entry. What goes wrong ends the entry, with a warning, and nothing else."""

    def __init__(
        self, folder: Path, key: str, max_bytes: int, before_write: Callable[[int], None]
    ) -> None:
        self._path = folder / (key + SUFFIX)
        self._before_write = before_write
        self._key = key
        self._max_bytes = max_bytes
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0
        self._num_clips = 0
        self._feature_dim = 0
        self._temporary: Path | None = None
        self._file: BinaryIO | None = None
        try:
            descriptor, name = mkstemp(TEMPORARY_SUFFIX, f"{key}.", folder)
        except OSError as error:
            self._give_up(str(error))
            return
        self._file, self._temporary = os.fdopen(descriptor, "wb"), Path(name)

    def add(self, values: FloatArray) -> None:
        """The next clips' features [D, n]."""
        self._feature_dim = values.shape[0]
        self._num_clips += values.shape[1]
        self._write(np.ascontiguousarray(values.T, "<f4").tobytes())

    def commit(self, decoded: Decoded) -> None:
        """Keep the entry, under its key."""
        about = _About(
            key=self._key,
            feature_dim=self._feature_dim,
            num_clips=self._num_clips,
            duration_seconds=decoded.duration_seconds,
            num_frames=decoded.num_frames,
            warnings=decoded.warnings,
            num_bytes=decoded.video.num_bytes,
            video=DeclaredFields.of(decoded.video),
        )
        text = about.model_dump_json().encode()
        self._write(text)
        self._write(_TRAILER.pack(_MAGIC, len(text), self._sha256.digest()))
        if self._file is None or self._temporary is None:
            return
        try:
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            self._give_up(str(error))
        self._file = self._temporary = None

    def close(self) -> None:
        """Remove what was not committed."""
        if self._file is not None:
            # What is left in its buffer may have no room on the disk.
            with suppress(OSError):
                self._file.close()
            self._file = None
        if self._temporary is not None:
            remove(self._temporary)
            self._temporary = None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            self._give_up(f"it is larger than the store's {self._max_bytes} bytes")
            return
        try:
            self._before_write(len(data))
            self._file.write(data)
            # Others see how much room is taken.
            self._file.flush()
            self._sha256.update(data)
        except OSError as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        _log.warning("feature store: %s is not kept: %s", self._path, why)
        self.close()


def _verified(file: BinaryIO, key: str) -> _About:
    """An entry's JSON, once the whole file is what was written. Raises InvalidFile."""
    num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes < _TRAILER.size:
        raise InvalidFile(f"it has {num_bytes} bytes, at least {_TRAILER.size} are expected")
    file.seek(num_bytes - _TRAILER.size)
    magic, num_text_bytes, digest = _TRAILER.unpack(file.read(_TRAILER.size))
    num_value_bytes = num_bytes - _TRAILER.size - num_text_bytes
    if magic != _MAGIC or num_value_bytes < 0:
        raise InvalidFile("it has no trailer")
    sha256, left = hashlib.sha256(), num_bytes - _TRAILER.size
    file.seek(0)
    while left:
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            raise InvalidFile("it ends early")
        sha256.update(piece)
        left -= len(piece)
    if sha256.digest() != digest:
        raise InvalidFile("its hash is another one")
    file.seek(num_value_bytes)
    about = parse(_About, json.loads(file.read(num_text_bytes)), source="its description")
    if about.key != key or num_value_bytes != 4 * about.feature_dim * about.num_clips:
        raise InvalidFile(f"it is the entry of {about.key}")
    return about


def remove(path: Path) -> None:
    """Remove a file that another process may have removed, or that cannot be."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
