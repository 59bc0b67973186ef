"""One video's features as bytes: the clips float32 [N, D] as they came, what decoding found as
JSON, and a trailer with the hash of both.

Where they lie is a `Draft`'s matter, which lets an entry be found once it is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO, Literal, Protocol

import numpy as np
from pydantic import Field

from backtal.decoded import Decoded
from backtal.errors import InvalidFile, Unavailable
from backtal.features import FloatArray
from backtal.settings import Settings, parse
from backtal.video.declared_fields import DeclaredFields

SUFFIX = ".features"
PIECE_BYTES = 1 << 20
CLIPS_PER_READ = 256
_TRAILER = struct.Struct("<8sQ32s")
_MAGIC = b"BTFEAT01"

# found, missing, damaged: of a look-up. kept: of an entry. failed: of either, where the disk or the
# object store did not serve it.
Outcome = Literal["found", "missing", "damaged", "kept", "failed"]

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

    def __init__(self, file: BinaryIO, key: str, discard: Callable[[], None]) -> None:
        """Takes `file`; `discard` removes the entry, where it cannot be read later on.

        Raises InvalidFile for what is not as it was written, ValueError, OSError.
        """
        try:
            about = _verified(file, key)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._about = about
        self._discard = discard

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
                self._discard()
                raise Unavailable(
                    f"stored features cannot be read: {error}", retry_after_seconds=1.0
                ) from None
            left -= num_clips
            yield np.ascontiguousarray(rows.T, np.float32)


class Draft(Protocol):
    """An entry that is being written."""

    def write(self, data: bytes) -> None:
        """Add to it. Raises OSError."""

    def keep(self) -> None:
        """Let it be found under its key. Raises OSError."""

    def close(self) -> None:
        """Remove what was not kept. May be called twice."""


class EntryWriter:
    """Writes the entry of `key`. What goes wrong ends it, with a warning, and nothing else.

    name: for the warning. open_draft raises OSError where none can be begun. counts: gets what
    became of the entry.
    """

    def __init__(
        self,
        name: str,
        key: str,
        max_bytes: int,
        open_draft: Callable[[], Draft],
        counts: Counter[Outcome],
    ) -> None:
        self._name = name
        self._key = key
        self._max_bytes = max_bytes
        self._counts = counts
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0
        self._num_clips = 0
        self._feature_dim = 0
        self._draft: Draft | None = None
        try:
            self._draft = open_draft()
        except OSError as error:
            self._fail(error)

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
        if self._draft is None:
            return
        try:
            self._draft.keep()
        except OSError as error:
            self._fail(error)
        else:
            self._counts["kept"] += 1

    def close(self) -> None:
        """Remove what was not committed."""
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _write(self, data: bytes) -> None:
        if self._draft is None:
            return
        self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            self._give_up(f"it is larger than the store's {self._max_bytes} bytes")
            return
        try:
            self._draft.write(data)
            self._sha256.update(data)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._counts["failed"] += 1
        self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        _log.warning("feature store: %s is not kept: %s", self._name, why)
        self.close()


def _verified(file: BinaryIO, key: str) -> _About:
    """An entry's JSON, once the whole file is what was written. Raises InvalidFile."""
    num_bytes = file.seek(0, os.SEEK_END)
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
