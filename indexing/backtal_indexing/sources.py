"""What a run is given: files, folders, globs, manifests, `s3://` prefixes, as one list of videos.

A manifest names videos, one a line (`.txt`), or in a column `uri`, with an optional column
`identity`, of a table (`.csv`, `.parquet`). Its paths are relative to its own folder.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from backtal.commands.features import VIDEO_SUFFIXES
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal_indexing.identity import GIVEN, etag_identity, stamp_of
from backtal_indexing.store import S3_PREFIX, Store, normal_url
from backtal_indexing.uris import file_uri, path_of

MANIFEST_SUFFIXES = (".txt", ".csv", ".parquet")
_SUFFIXES = tuple(sorted(VIDEO_SUFFIXES))
ALLOWED_SCHEMES = ("file", "s3", "https")
URI_COLUMN, IDENTITY_COLUMN = "uri", "identity"
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Listed:
    """A video as a listing tells it.

    identity: where the listing tells that of its content. stamp: of a file of this machine.
    """

    uri: str
    identity: str | None = None
    stamp: str | None = None


class Source(Protocol):
    """Where videos come from."""

    def videos(self) -> Iterator[Listed]:
        """The videos, in no order."""
        ...

    def covers(self, uri: str) -> bool:
        """Whether `uri` would be among `videos` if it were still there."""
        ...

    def folders(self) -> set[str]:
        """The folders of this machine that its videos are in or below."""
        ...


def parse_source(text: str) -> Source:
    """The source that is meant. Raises InvalidArgument, NotFound."""
    if "://" in text and urlsplit(text).scheme not in ALLOWED_SCHEMES:
        allowed = ", ".join(f"{scheme}:" for scheme in ALLOWED_SCHEMES)
        raise InvalidArgument(f"source {text!r}: allowed are a path and {allowed}")
    if text.startswith("https://"):
        return One(text)
    name = normal_url(text)
    is_remote = name.startswith(S3_PREFIX)
    if not is_remote and Path(name).is_dir():
        return Tree(name)
    if name.endswith(MANIFEST_SUFFIXES):
        return VideoList(name)
    if _GLOB.search(name) and (is_remote or not Path(name).exists()):
        folder = name[: _GLOB.search(name).start()].rpartition("/")[0]  # type: ignore[union-attr]
        return Tree(folder or "/", name)
    if is_remote:
        return One(name) if name.lower().endswith(_SUFFIXES) else Tree(name)
    if not Path(name).exists():
        raise NotFound(f"no such file or folder: {text}")
    return One(file_uri(name))


def roots_of(sources: Sequence[Source]) -> list[Path]:
    """The folders of this machine that a service must be allowed to read."""
    folders = {folder for source in sources for folder in source.folders()}
    return sorted(Path(folder) for folder in folders)


@dataclass(frozen=True)
class One:
    """One video, by its URI."""

    uri: str

    def videos(self) -> Iterator[Listed]:
        """See `Source`."""
        yield look_up(self.uri)

    def covers(self, uri: str) -> bool:  # noqa: ARG002
        """Never: a video that is named is not found missing, but to be in error."""
        return False

    def folders(self) -> set[str]:
        """See `Source`."""
        return _folder_of(self.uri)


@dataclass(frozen=True)
class Tree:
    """The videos below a folder or an `s3://` prefix: by their suffixes, or by a glob.

    Names that begin with a dot are left out, and links to folders are not followed.
    """

    root: str
    glob: str | None = None

    def videos(self) -> Iterator[Listed]:
        """See `Source`. Raises InvalidArgument for none, PermissionDenied, Unavailable.

        None at all is a disk that is not mounted rather than a library that was deleted.
        """
        is_empty = True
        for video in self._remote() if self.root.startswith(S3_PREFIX) else self._local():
            is_empty = False
            yield video
        if is_empty:
            raise InvalidArgument(f"no video is at {self.glob or self.root}")

    def covers(self, uri: str) -> bool:
        """See `Source`."""
        place = uri if self.root.startswith(S3_PREFIX) else path_of(uri)
        return place is not None and self._matcher()(place)

    def folders(self) -> set[str]:
        """See `Source`."""
        return set() if self.root.startswith(S3_PREFIX) else {self.root}

    def _remote(self) -> Iterator[Listed]:
        matches = self._matcher()
        store = Store(self.root)
        for stored in store.list():
            uri = store.url_of(stored.name)
            if matches(uri):
                yield Listed(uri, etag_identity(stored.etag, stored.num_bytes))

    def _local(self) -> Iterator[Listed]:
        matches = self._matcher()
        for entry in _files(self.root):
            if matches(entry.path):
                yield Listed(file_uri(entry.path), stamp=stamp_of(entry.stat()))

    def _matcher(self) -> _Matcher:
        return _Matcher(
            self.root.rstrip("/") + "/", None if self.glob is None else glob_re(self.glob)
        )


@dataclass(frozen=True)
class _Matcher:
    """Whether a path or an `s3:` URI is one of a tree's videos."""

    folder: str
    pattern: re.Pattern[str] | None

    def __call__(self, place: str) -> bool:
        if not place.startswith(self.folder):
            return False
        if self.pattern is not None:
            return self.pattern.fullmatch(place) is not None
        is_hidden = "/." in place[len(self.folder) - 1 :]
        return not is_hidden and place.lower().endswith(_SUFFIXES)


@dataclass(frozen=True)
class VideoList:
    """A manifest at a path or an `s3://` URI."""

    name: str

    def videos(self) -> Iterator[Listed]:
        """See `Source`. Raises InvalidFile with the line or the column that is wrong."""
        folder = self.name.rpartition("/")[0]
        for number, (text, identity) in enumerate(self._entries(), start=1):
            uri = self._uri(text, folder, number)
            yield Listed(uri, GIVEN + identity) if identity else look_up(uri)

    def covers(self, uri: str) -> bool:  # noqa: ARG002
        """Never: a shorter list may be of another part of the library."""
        return False

    def folders(self) -> set[str]:
        """See `Source`."""
        return {folder for video in self.videos() for folder in _folder_of(video.uri)}

    def _uri(self, text: str, folder: str, number: int) -> str:
        scheme, is_uri, _ = text.partition("://")
        if is_uri and scheme in ALLOWED_SCHEMES:
            return text if scheme != "file" else file_uri(normal_url(text))
        if is_uri:
            raise InvalidFile(f"{self.name}, entry {number}: {text!r} has scheme {scheme!r}")
        if folder.startswith(S3_PREFIX):
            return f"{folder}/{text}"
        return file_uri(os.path.normpath(Path(folder, text)))

    def _entries(self) -> Iterator[tuple[str, str | None]]:
        if self.name.endswith(".parquet"):
            yield from self._parquet()
        elif self.name.endswith(".csv"):
            yield from self._csv()
        else:
            yield from ((line, None) for line in self._lines() if line and line[0] != "#")

    def _lines(self) -> Iterator[str]:
        try:
            if not self.name.startswith(S3_PREFIX):
                with Path(self.name).open(encoding="utf-8", newline="") as file:
                    yield from (line.strip("\r\n") for line in file)
                return
            yield from _remote(self.name).decode().splitlines()
        except FileNotFoundError:
            raise NotFound(f"no such file: {self.name}") from None
        except UnicodeDecodeError as error:
            raise InvalidFile(f"{self.name} is no text: {error}") from None

    def _csv(self) -> Iterator[tuple[str, str | None]]:
        reader = csv.reader(self._lines())
        names = next(reader, [])
        self._check_columns(names)
        at = names.index(URI_COLUMN)
        identity_at = names.index(IDENTITY_COLUMN) if IDENTITY_COLUMN in names else None
        for row in reader:
            if not row:
                continue
            if len(row) != len(names) or not row[at]:
                is_whole = len(row) == len(names)
                told = (
                    f"{URI_COLUMN} is empty" if is_whole else f"{len(row)} fields of {len(names)}"
                )
                raise InvalidFile(f"{self.name}, line {reader.line_num}: {told}")
            yield row[at], None if identity_at is None else row[identity_at] or None

    def _parquet(self) -> Iterator[tuple[str, str | None]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        is_remote = self.name.startswith(S3_PREFIX)
        try:
            file = pq.ParquetFile(pa.BufferReader(_remote(self.name)) if is_remote else self.name)
        except FileNotFoundError:
            raise NotFound(f"no such file: {self.name}") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidFile(f"{self.name} is no Parquet file: {error}") from None
        with file:
            self._check_columns(file.schema_arrow.names)
            columns = [URI_COLUMN, IDENTITY_COLUMN]
            for batch in file.iter_batches(columns=columns):
                uris = batch[URI_COLUMN].to_pylist()
                has_identity = IDENTITY_COLUMN in batch.schema.names
                none = [None] * len(uris)
                identities = batch[IDENTITY_COLUMN].to_pylist() if has_identity else none
                yield from zip(uris, identities, strict=True)

    def _check_columns(self, names: object) -> None:
        if URI_COLUMN not in (found := list(names)):  # type: ignore[call-overload]
            raise InvalidFile(f"{self.name} has the columns {found}, expected {URI_COLUMN!r}")


def look_up(uri: str) -> Listed:
    """A video that is named, with its stamp where it is a file of this machine."""
    path = path_of(uri)
    if path is None:
        return Listed(uri)
    try:
        return Listed(uri, stamp=stamp_of(Path(path).stat()))
    except OSError:
        # Its worker says so, of this video alone.
        return Listed(uri)


@lru_cache(maxsize=64)
def glob_re(glob: str) -> re.Pattern[str]:
    """A glob as an expression: `*` and `?` within a folder, `**` across them, `[...]`."""
    parts = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])", glob)
    return re.compile(
        "".join(
            parts[token]
            if token in parts
            else "[" + ("^" + token[2:] if token[1] == "!" else token[1:])
            if token[:1] == "[" and token[-1:] == "]"
            else re.escape(token)
            for token in tokens
        ),
        re.DOTALL,
    )


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry


def _folder_of(uri: str) -> set[str]:
    path = path_of(uri)
    return set() if path is None else {str(Path(path).parent)}


def _remote(url: str) -> bytes:
    folder, _, name = url.rpartition("/")
    return Store(folder).read(name)
