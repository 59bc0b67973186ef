"""The folder where converted weights stay, and files that appear in it whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backtal.errors import Unavailable


def cache_folder() -> Path:
    """``$BACKTAL_CACHE``, else ``$XDG_CACHE_HOME/backtal``, else ``~/.cache/backtal``."""
    if chosen := os.environ.get("BACKTAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "backtal"


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: what is written there becomes `path` when the block ends.

    After an error nothing is left. Raises Unavailable where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def cannot_write(where: Path, error: OSError) -> Unavailable:
    """The error to raise when `where` cannot be written."""
    if error.errno == errno.ENOSPC:
        return Unavailable(f"the disk of {where} is full")
    return Unavailable(f"cannot write {where}: {error.strerror or error}")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
