"""A folder of entries: the least recently used ones are removed where there are too many."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from backtal.errors import InvalidArgument, InvalidFile
from backtal.feature_store.entry import SUFFIX, EntryWriter, Outcome, StoredFeatures
from backtal.feature_store.settings import FILL_TO, LOOK_AFTER

TEMPORARY_SUFFIX = ".part"
# Nobody takes so long from one batch of clips to the next: its writer is dead.
ABANDONED_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class Folder:
    """A `FeatureStore` on a disk; several processes of one machine may have it open.

    Raises InvalidArgument for a folder that cannot be made or written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._folder = folder
        self._max_bytes = max_bytes
        # A process that comes to a full folder looks at once.
        self._written_bytes = max_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"feature store {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidArgument(f"feature store {folder} cannot be written to")

    def find(self, key: str) -> StoredFeatures | None:
        """See `FeatureStore`."""
        path = self._path(key)
        try:
            found = StoredFeatures(path.open("rb"), key, lambda: _remove(path))
        except FileNotFoundError:
            self.counts["missing"] += 1
            return None
        except OSError as error:
            # Not of its making, such as too many open files: it may be sound.
            self.counts["failed"] += 1
            _log.warning("feature store: %s cannot be read: %s", path, error)
            return None
        except (InvalidFile, ValueError) as error:
            self.counts["damaged"] += 1
            _log.warning("feature store: %s is removed: %s", path, error)
            _remove(path)
            return None
        self.counts["found"] += 1
        # Its place among the least recently used; by another process it may be gone.
        with suppress(OSError):
            os.utime(path)
        return found

    @contextmanager
    def writing(self, key: str) -> Iterator[EntryWriter]:
        """See `FeatureStore`."""
        path = self._path(key)
        writer = EntryWriter(
            str(path),
            key,
            self._max_bytes,
            lambda: _TemporaryFile(path, self._before_write),
            self.counts,
        )
        try:
            yield writer
        finally:
            writer.close()

    def _path(self, key: str) -> Path:
        return self._folder / (key + SUFFIX)

    def _before_write(self, num_bytes: int) -> None:
        """Remove what was not used for the longest time, if it is time to look."""
        self._written_bytes += num_bytes
        if self._written_bytes > LOOK_AFTER * self._max_bytes:
            self._written_bytes = 0
            self._make_room(num_bytes)

    def _make_room(self, num_bytes: int) -> None:
        found: list[tuple[int, int, Path]] = []
        for entry in os.scandir(self._folder):
            # Another process may remove it first.
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        left_bytes = num_bytes + sum(size for _, size, _ in found)
        abandoned_ns = time.time_ns() - int(ABANDONED_SECONDS * 1e9)
        for used_ns, size, path in sorted(found):
            is_entry = path.suffix == SUFFIX
            is_abandoned = path.suffix == TEMPORARY_SUFFIX and used_ns < abandoned_ns
            if is_abandoned or (is_entry and left_bytes > FILL_TO * self._max_bytes):
                _remove(path)
                left_bytes -= size


class _TemporaryFile:
    """A `Draft` beside its place, and renamed: the entry is there whole or not at all."""

    def __init__(self, path: Path, before_write: Callable[[int], None]) -> None:
        descriptor, name = mkstemp(TEMPORARY_SUFFIX, f"{path.stem}.", path.parent)
        self._file = os.fdopen(descriptor, "wb")
        self._temporary = Path(name)
        self._path = path
        self._before_write = before_write

    def write(self, data: bytes) -> None:
        self._before_write(len(data))
        self._file.write(data)
        # Others see how much room is taken.
        self._file.flush()

    def keep(self) -> None:
        self._file.close()
        self._temporary.replace(self._path)

    def close(self) -> None:
        # What is left in its buffer may have no room on the disk.
        with suppress(OSError):
            self._file.close()
        _remove(self._temporary)


def _remove(path: Path) -> None:
    """Remove a file that another process may have removed, or that cannot be."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
