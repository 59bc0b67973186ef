"""The folder of entries: found by their key, and not more of them than there is room for."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field, field_validator

from backtal.errors import InvalidArgument, InvalidFile
from backtal.feature_store.entry import (
    SUFFIX,
    TEMPORARY_SUFFIX,
    EntryWriter,
    StoredFeatures,
    remove,
)
from backtal.settings import Settings

# Nobody takes so long from one batch of clips to the next: its writer is dead.
ABANDONED_SECONDS = 3600.0
# Looking through the folder takes time. It is done after so much was written, and makes so much
# room that several processes stay within the limit until they look again.
LOOK_AFTER = 0.02
FILL_TO = 0.9

_log = logging.getLogger(__name__)


class FeatureStoreSettings(Settings):
    """Where features are kept and how many bytes they may take, all together.

    The folder may be shared by the processes of one machine.
    """

    folder: Path
    max_bytes: int = Field(default=10 * 1024**3, ge=1)

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        # What is written here may be read by a process that runs elsewhere.
        return folder.absolute()


class FeatureStore:
    """Entries by their key, the least recently used ones removed where there are too many.

    Raises InvalidArgument for a folder that cannot be made or written to.
    """

    def __init__(self, settings: FeatureStoreSettings) -> None:
        self._folder = settings.folder
        self._max_bytes = settings.max_bytes
        # A process that comes to a full folder looks at once.
        self._written_bytes = self._max_bytes
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"feature store {self._folder}: {error.strerror}") from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise InvalidArgument(f"feature store {self._folder} cannot be written to")

    def find(self, key: str) -> StoredFeatures | None:
        """The entry of `key`, read and found whole; the caller closes it."""
        path = self._folder / (key + SUFFIX)
        try:
            found = StoredFeatures(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            # Not of its making, such as too many open files: it may be sound.
            _log.warning("feature store: %s cannot be read: %s", path, error)
            return None
        except (InvalidFile, ValueError) as error:
            _log.warning("feature store: %s is removed: %s", path, error)
            remove(path)
            return None
        # Its place among the least recently used; by another process it may be gone.
        with suppress(OSError):
            os.utime(path)
        return found

    @contextmanager
    def writing(self, key: str) -> Iterator[EntryWriter]:
        """An entry in the making; without its `commit` nothing is kept of it."""
        writer = EntryWriter(self._folder, key, self._max_bytes, self._before_write)
        try:
            yield writer
        finally:
            writer.close()

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
                remove(path)
                left_bytes -= size
