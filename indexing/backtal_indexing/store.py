"""A folder or an `s3://` prefix as a store of small whole objects, by their names.

What an index rests on is `create`: an object comes into being whole, and only where there was
none. On a disk that is a temporary file with a second name, in S3 a conditional put.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from backtal.bucket import open_bucket
from backtal.errors import BacktalError, InvalidArgument, NotFound, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

S3_PREFIX = "s3://"
RETRY_AFTER_SECONDS = 1.0
# How long a request to S3 is tried again before its trouble is told.
RETRY_SECONDS = 60.0
MAX_RETRIES = 10
# Of S3's clients here: DuckDB, Spark and boto take the same variables.
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing tells it; etag None where the store has none."""

    name: str
    num_bytes: int
    etag: str | None


class Store:
    """A store at `url`: a path, a `file:` URI or `s3://BUCKET/PREFIX`.

    Keys, region and endpoint of S3 come from the environment (`AWS_ACCESS_KEY_ID`,
    `AWS_ENDPOINT_URL`, ...). Calls raise NotFound, PermissionDenied, and Unavailable for a store
    that does not answer. Names have slashes between folders. A folder must be there, unless
    `make` says to make it.
    """

    def __init__(self, url: str, *, make: bool = False) -> None:
        self.url = normal_url(url)
        self.folder = None if self.url.startswith(S3_PREFIX) else Path(self.url)
        self._objects = open_objects(self.url, make=make)

    def url_of(self, name: str) -> str:
        """Where others find an object: a path or an `s3://` URI."""
        return f"{self.url}/{name}"

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """The objects below a folder of the store, in no order; nothing where it is not there."""
        with translated(self.url):
            for batch in self._objects.list(prefix or None):
                for about in batch:
                    yield StoredObject(about["path"], about["size"], about["e_tag"])

    def names(self, folder: str) -> Iterator[str]:
        """The names of what lies in a folder of the store; on a disk, without a look at each."""
        if self.folder is None:
            yield from (about.name for about in self.list(folder))
            return
        with (
            translated(self.url),
            suppress(FileNotFoundError),
            os.scandir(self.folder / folder) as entries,
        ):
            yield from (f"{folder}/{entry.name}" for entry in entries)

    def read(self, name: str) -> bytes:
        """An object, whole. Raises NotFound."""
        with translated(self.url_of(name)):
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            return bytes(self._objects.get(name).bytes())

    def pieces(self, name: str) -> Iterator[bytes]:
        """An object, piece by piece. Raises NotFound."""
        with translated(self.url_of(name)):
            for piece in self._objects.get(name).stream():
                yield bytes(piece)

    def tail(self, name: str, num_bytes: int) -> bytes:
        """The last bytes of an object. Raises NotFound."""
        size = self.head(name).num_bytes
        with translated(self.url_of(name)):
            return bytes(self._objects.get_range(name, start=max(size - num_bytes, 0), end=size))

    def head(self, name: str) -> StoredObject:
        """What a listing would tell of an object. Raises NotFound."""
        with translated(self.url_of(name)):
            about = self._objects.head(name)
            return StoredObject(name, about["size"], about["e_tag"])

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that must not be there yet; whether it was not.

        Of several who create one name, each with other data, one gets True. Killed midway,
        nothing is there.
        """
        with translated(self.url_of(name)):
            if self.folder is not None:
                return _create_file(self.folder / name, data)
            # A put that S3 took but whose answer was lost is sent again and finds itself.
            from obstore.exceptions import AlreadyExistsError, PreconditionError

            try:
                self._objects.put(name, data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return self._is(name, data)
            return True

    def replace(self, name: str, data: bytes | Path) -> None:
        """Write an object whether it is there or not: readers see the old or the new one."""
        with translated(self.url_of(name)):
            self._objects.put(name, data)

    def _is(self, name: str, data: bytes) -> bool:
        found = self._objects.head(name)
        return found["size"] == len(data) and self.read(name) == data


def normal_url(url: str) -> str:
    """`url` in one spelling: an absolute path, or `s3://BUCKET/PREFIX` without a last slash.

    Raises InvalidArgument for another scheme.
    """
    if url.startswith(S3_PREFIX):
        bucket, _, prefix = url.removeprefix(S3_PREFIX).partition("/")
        if not bucket:
            raise InvalidArgument(f"{url!r} names no bucket, expected s3://BUCKET/PREFIX")
        return f"{S3_PREFIX}{bucket}/{prefix.strip('/')}".rstrip("/")
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return os.path.normpath(os.fsdecode(unquote_to_bytes(parts.path)))
    if "://" in url:
        raise InvalidArgument(f"{url!r} has scheme {parts.scheme!r}, allowed are a path and s3:")
    # Links stay: a library is known by the names that its owner gives.
    return os.path.normpath(Path(url).absolute())


def open_objects(url: str, *, make: bool = False) -> ObjectStore:
    """obstore's view of a normal URL, rooted there. Raises NotFound for no such folder."""
    from obstore.store import LocalStore

    if not url.startswith(S3_PREFIX):
        if not make and not Path(url).is_dir():
            raise NotFound(f"no such folder: {url}")
        with translated(url):
            return LocalStore(url, mkdir=make)
    bucket, _, prefix = url.removeprefix(S3_PREFIX).partition("/")
    endpoint = next((os.environ[name] for name in ENDPOINT_VARIABLES if name in os.environ), None)
    return open_bucket(
        bucket,
        prefix=prefix or None,
        endpoint=endpoint,
        max_retries=MAX_RETRIES,
        retry_seconds=RETRY_SECONDS,
    )


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of obstore and of files inside the block as ours."""
    try:
        yield
    except (BacktalError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise NotFound(f"{name}: no such object") from None
    except PermissionError as error:
        raise PermissionDenied(f"{name}: {error.strerror or 'permission denied'}") from None
    except Exception as error:
        kind = type(error).__name__
        if kind == "NotFoundError":
            raise NotFound(f"{name}: no such object or bucket") from None
        if kind in ("PermissionDeniedError", "UnauthenticatedError"):
            raise PermissionDenied(f"{name}: its store refuses it to us") from None
        if isinstance(error, OSError) or type(error).__module__.startswith("obstore"):
            raise Unavailable(
                f"{name}: its store cannot be used ({kind}: {str(error)[:200]})",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from None
        raise


def _create_file(path: Path, data: bytes) -> bool:
    """`path` with `data`, on the disk, unless there is such a file; whether there was none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Not a rename, which would replace another's file.
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
