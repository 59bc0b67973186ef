"""A manifest: a file that names videos.

One a line (`.txt`), or in a column `uri`, with an optional column `identity`, of a table (`.csv`,
`.parquet`). Its paths are relative to its own folder.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import InvalidFile, NotFound
from backtal_indexing.identity import GIVEN
from backtal_indexing.listed import ALLOWED_SCHEMES, Listed, folder_of, look_up
from backtal_indexing.store import S3_PREFIX, Store, normal_url
from backtal_indexing.uris import file_uri

MANIFEST_SUFFIXES = (".txt", ".csv", ".parquet")
URI_COLUMN, IDENTITY_COLUMN = "uri", "identity"


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
        return {folder for video in self.videos() for folder in folder_of(video.uri)}

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
                told = f"{len(row)} fields of {len(names)}"
                if len(row) == len(names):
                    told = f"{URI_COLUMN} is empty"
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


def _remote(url: str) -> bytes:
    folder, _, name = url.rpartition("/")
    return Store(folder).read(name)
