"""A video before anybody has looked at it: what its source says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backtal_indexing.identity import stamp_of
from backtal_indexing.uris import path_of

ALLOWED_SCHEMES = ("file", "s3", "https")


@dataclass(frozen=True)
class Listed:
    """A video as a listing tells it.

    identity: where the listing tells that of its content. stamp: of a file of this machine.
    """

    uri: str
    identity: str | None = None
    stamp: str | None = None


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


def folder_of(uri: str) -> set[str]:
    """The folder of this machine that a video lies in, where it does in any."""
    path = path_of(uri)
    return set() if path is None else {str(Path(path).parent)}
