"""Entries as objects of an S3 bucket: those written the longest time ago go first.

S3 tells when an object was written and not when it was read. Whoever shares the prefix needs no
lock: an object is there whole or not at all, two writers of one key write the same features, and to
remove what is gone is no error.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from backtal.bucket import open_bucket
from backtal.errors import InvalidFile
from backtal.feature_store.entry import (
    PIECE_BYTES,
    SUFFIX,
    EntryWriter,
    Outcome,
    StoredFeatures,
)
from backtal.feature_store.settings import FILL_TO, LOOK_AFTER

if TYPE_CHECKING:
    from obstore.store import S3Store

# A store that failed is left alone for so long, that not every request waits for it.
REST_SECONDS = 30.0
OBJECTS_PER_PAGE = 1000

_log = logging.getLogger(__name__)


class Bucket:
    """A `FeatureStore` below `prefix`, s3://BUCKET/FOLDER/.

    A look-up, and the keeping of an entry, end after timeout_seconds. Raises MissingDependency
    where obstore is not installed; the store itself is first asked for by a request.
    """

    def __init__(
        self,
        prefix: str,
        max_bytes: int,
        *,
        endpoint: str | None,
        region: str | None,
        timeout_seconds: float,
    ) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        bucket, _, folder = prefix.removeprefix("s3://").partition("/")
        # Nothing is tried again: a request waits for this.
        self._objects = open_bucket(
            bucket,
            prefix=folder or None,
            endpoint=endpoint,
            region=region,
            timeout_seconds=timeout_seconds,
            max_retries=0,
            retry_seconds=timeout_seconds,
        )
        self._rests_until = 0.0
        self._room = _Room(self._objects, prefix, max_bytes)

    def find(self, key: str) -> StoredFeatures | None:
        """See `FeatureStore`."""
        name = key + SUFFIX
        try:
            with self._reached():
                file = self._fetch(name)
            found = StoredFeatures(file, key, lambda: None)
        except FileNotFoundError:
            self.counts["missing"] += 1
            return None
        except OSError as error:
            self.counts["failed"] += 1
            _log.warning("feature store: %s%s cannot be read: %s", self._prefix, name, error)
            return None
        except (InvalidFile, ValueError) as error:
            self.counts["damaged"] += 1
            # Whoever makes it again puts it in its place.
            _log.warning("feature store: %s%s is damaged: %s", self._prefix, name, error)
            return None
        self.counts["found"] += 1
        return found

    @contextmanager
    def writing(self, key: str) -> Iterator[EntryWriter]:
        """See `FeatureStore`."""
        name = key + SUFFIX
        writer = EntryWriter(
            self._prefix + name,
            key,
            self._max_bytes,
            lambda: _Upload(self, name),
            self.counts,
        )
        try:
            yield writer
        finally:
            writer.close()

    def put(self, name: str, file: BinaryIO) -> None:
        """Write an object. Raises OSError."""
        self._room.before_write(file.seek(0, os.SEEK_END))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, self._reached():
            # In one request: parts of one that breaks off would stay in the bucket, unseen.
            self._objects.put(name, data, use_multipart=False)

    def _fetch(self, name: str) -> BinaryIO:
        """An object's content. Raises FileNotFoundError, InvalidFile; OSError."""
        deadline = time.monotonic() + self._timeout_seconds
        found = self._objects.get(name)
        if found.meta["size"] > self._max_bytes:
            raise InvalidFile(f"it has {found.meta['size']} bytes")
        file = TemporaryFile()  # noqa: SIM115 - it goes with the entry
        try:
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                file.write(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it takes more than {self._timeout_seconds:g} s")
        except BaseException:
            file.close()
            raise
        return file

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Tell obstore's errors as OSError. After one, and for a while, that is told at once."""
        if time.monotonic() < self._rests_until:
            raise OSError(f"the store failed within the last {REST_SECONDS:g} s")
        try:
            with _as_os_errors():
                yield
        except FileNotFoundError:
            raise
        except OSError:
            self._rests_until = time.monotonic() + REST_SECONDS
            raise


class _Upload:
    """A `Draft` in a file without a name, sent as one object once it is whole."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._file = TemporaryFile()  # noqa: SIM115 - until `close`

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def keep(self) -> None:
        self._file.flush()
        self._bucket.put(self._name, self._file)

    def close(self) -> None:
        # What is left in its buffer may have no room on the disk.
        with suppress(OSError):
            self._file.close()


class _Room:
    """Keeps the objects of a prefix below `max_bytes`, beside the requests.

    Listing many takes long. What cannot be listed, or deleted, is not added to.
    """

    def __init__(self, objects: S3Store, prefix: str, max_bytes: int) -> None:
        self._objects = objects
        self._prefix = prefix
        self._max_bytes = max_bytes
        # A process that comes to a full prefix looks at once.
        self._written_bytes = max_bytes
        self._problem: OSError | None = None
        self._look: threading.Thread | None = None

    def before_write(self, num_bytes: int) -> None:
        """Look through the prefix, if it is time to. Raises OSError where the last look failed."""
        self._written_bytes += num_bytes
        is_looking = self._look is not None and self._look.is_alive()
        if not is_looking and self._written_bytes > LOOK_AFTER * self._max_bytes:
            self._written_bytes = 0
            self._look = threading.Thread(target=self._make, name="feature-store", daemon=True)
            self._look.start()
        if self._problem is not None:
            raise self._problem

    def _make(self) -> None:
        try:
            with _as_os_errors():
                self._remove_oldest()
        except OSError as error:
            _log.warning("feature store: room cannot be made in %s: %s", self._prefix, error)
            self._problem = OSError(f"room could not be made: {error}")
            self._written_bytes = self._max_bytes
        else:
            self._problem = None

    def _remove_oldest(self) -> None:
        found = [
            (about["last_modified"], about["size"], about["path"])
            for page in self._objects.list(chunk_size=OBJECTS_PER_PAGE)
            for about in page
            if about["path"].endswith(SUFFIX)
        ]
        left_bytes = sum(size for _, size, _ in found)
        names = []
        for _, size, name in sorted(found):
            if left_bytes <= FILL_TO * self._max_bytes:
                break
            names.append(name)
            left_bytes -= size
        if names:
            self._objects.delete(names)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        # Its text tells its cause below the first line, and the whole request.
        raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from None
