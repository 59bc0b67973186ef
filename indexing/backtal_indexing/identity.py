"""What a video's content is known by: its etag, or its size and the hash of all of its bytes.

A hash of some parts of a file misses a change in the others, and so does a file's time, which any
copy can set. So a file is hashed whole, by the worker that sends it anyway (about 1 GB/s from the
page cache; decoding takes some hundred times as long). That a file did not change since is then
seen without reading it, as git does: by its stamp, which is size, inode, and both times in
nanoseconds. The time of the last change of the inode cannot be set, and every write moves it. A
stamp that is younger than the clock's step is not kept. A file with a new stamp and
the old bytes (copied back, or touched) is read again at each run, and found unchanged.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import NotFound, PermissionDenied, Unavailable
from backtal_indexing.uris import path_of, s3_object

PIECE_BYTES = 1 << 20
HASH_BYTES = 16
# The step of a file's times is the kernel's tick, up to 10 ms; of some network shares 2 s.
SETTLED_SECONDS = 2.0
HEAD_TIMEOUT_SECONDS = 30.0
# A video that could not be looked at.
UNKNOWN = ""
# An identity that a manifest gives: nothing to compare it with.
GIVEN = "given:"


@dataclass(frozen=True)
class Seen:
    """A video's identity and, of a file, its stamp; whether that may be trusted from now on."""

    identity: str
    stamp: str | None = None
    is_settled: bool = True

    @property
    def kept_stamp(self) -> str | None:
        """The stamp to remember."""
        return self.stamp if self.is_settled else None


def look(uri: str) -> Seen:
    """The identity of what is at `uri` now; a file is read whole.

    Raises NotFound, PermissionDenied, Unavailable.
    """
    path = path_of(uri)
    if path is not None:
        return look_at_file(path)
    if uri.startswith("s3:"):
        return Seen(_head_s3(uri))
    return Seen(_head_https(uri))


def look_at_file(path: str) -> Seen:
    """The identity of a file. Raises NotFound, PermissionDenied, Unavailable where it changes."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    num_bytes = 0
    try:
        with Path(path).open("rb") as file:
            before = os.fstat(file.fileno())
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                num_bytes += len(piece)
            after = os.fstat(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no such file: {path}") from None
    except IsADirectoryError:
        raise NotFound(f"{path} is a folder, expected a video file") from None
    except OSError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from None
    if stamp_of(before) != stamp_of(after):
        raise Unavailable(f"{path} changed while it was read")
    newest = max(before.st_mtime, before.st_ctime)
    is_settled = time.time() - newest > SETTLED_SECONDS
    return Seen(f"blake2b:{digest.hexdigest()}:{num_bytes}", stamp_of(before), is_settled)


def is_still(uri: str, seen: Seen) -> bool:
    """Whether what is at `uri` is still what was seen there; raises as `look` does."""
    path = path_of(uri)
    if path is not None:
        try:
            return stamp_of(Path(path).stat()) == seen.stamp
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}") from None
    if seen.identity.startswith(GIVEN):
        return True
    return look(uri).identity == seen.identity


def stamp_of(status: os.stat_result) -> str:
    """What changes with every change of a file."""
    times = f"{status.st_mtime_ns}:{status.st_ctime_ns}"
    return f"{status.st_size}:{status.st_ino}:{times}"


def etag_identity(etag: str | None, num_bytes: int | None) -> str | None:
    """The identity of an object with this etag; None where there is none."""
    return None if not etag else f"etag:{etag.strip(chr(34))}:{num_bytes}"


def _head_s3(uri: str) -> str:
    store, name = s3_object(uri)
    about = store.head(name)
    return etag_identity(about.etag, about.num_bytes) or f"size:{about.num_bytes}"


def _head_https(uri: str) -> str:
    import httpx

    place = uri.partition("?")[0]
    try:
        response = httpx.head(uri, timeout=HEAD_TIMEOUT_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise Unavailable(f"{place} does not answer: {type(error).__name__}") from None
    if response.status_code == 404:
        raise NotFound(f"{place}: no such object")
    if response.status_code in (401, 403):
        raise PermissionDenied(f"{place}: its server refuses it to us")
    if response.is_error:
        raise Unavailable(f"{place} is answered with {response.status_code}")
    headers = response.headers
    length = headers.get("content-length", "")
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return f"etag:{etag.strip(chr(34))}:{length}"
    return f"modified:{headers.get('last-modified', '')}:{length}"
