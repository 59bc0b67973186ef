"""What a run is given, as one list of videos: files, folders, globs, manifests, S3 prefixes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from backtal.commands.features import VIDEO_SUFFIXES
from backtal.errors import InvalidArgument, NotFound, PermissionDenied
from backtal_indexing.identity import etag_identity
from backtal_indexing.listed import ALLOWED_SCHEMES, Listed, folder_of, look_up
from backtal_indexing.store import S3_PREFIX, Store, normal_url
from backtal_indexing.uris import file_uri, path_of
from backtal_indexing.video_list import MANIFEST_SUFFIXES, VideoList

_SUFFIXES = tuple(sorted(VIDEO_SUFFIXES))
_GLOB = re.compile(r"[*?\[]")


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
        return folder_of(self.uri)


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
                yield look_up(file_uri(entry.path))

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
        place = waiting.pop()
        try:
            entries = os.scandir(place)
        except OSError as error:
            # A part that cannot be read is not a part that is gone.
            raise PermissionDenied(f"{place} cannot be listed: {error.strerror}") from None
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry
