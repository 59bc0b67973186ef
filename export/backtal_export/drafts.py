"""Writing into a repository that is being served: one writer at a time, whole folders only."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backtal_export.cache import cannot_write

# Hidden: Triton does not read it.
LOCK_NAME = ".lock"


@contextmanager
def only_writer(repository: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Make the repository where there is none, and keep other writers out while the block runs.

    Waits for the one that is at work. Raises Unavailable where the repository cannot be written.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        lock = (repository / LOCK_NAME).open("ab")
    except OSError as error:
        raise cannot_write(repository, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another writer of {repository}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def draft_beside(folder: Path) -> Iterator[Path]:
    """A hidden, empty folder beside `folder`; what is left of it is gone when the block ends."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft = scratch / "new"
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def rename_over(draft: Path, folder: Path) -> None:
    """Put a draft into its place, whole. What was there before goes with the draft's scratch."""
    if not folder.exists():
        draft.rename(folder)
        return
    # A folder that is not empty cannot be renamed over.
    aside = draft.parent / "old"
    folder.rename(aside)
    try:
        draft.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
