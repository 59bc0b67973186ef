"""`s3:` URIs: an object of a store that the operator named, read by byte ranges."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from backtal.bucket import open_bucket
from backtal.errors import (
    BacktalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from backtal_serving.uris.access import RemoteAccess

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

RETRY_AFTER_SECONDS = 1.0
MAX_RETRIES = 2
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_s3(uri: str, access: RemoteAccess) -> S3Object:
    """Open what `uri` names: s3://BUCKET/KEY, the key as it is, nothing encoded.

    Raises PermissionDenied, NotFound, InvalidArgument, Unavailable; MissingDependency.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    is_plain = all(segment not in ("", ".", "..") for segment in key.split("/"))
    if not _BUCKET.fullmatch(bucket) or not is_plain or not key.isprintable():
        raise InvalidArgument(f"uri {uri!r} is ill-formed, expected s3://BUCKET/KEY")
    access.check_s3(uri)
    return S3Object(uri, _store(bucket, access), key, place=access.s3_endpoint)


class S3Object:
    """A `RangeReader`: one version of an object; `place` is the store's address, if it has one."""

    def __init__(self, uri: str, store: S3Store, key: str, place: str | None) -> None:
        self.name = uri
        self._store = store
        self._key = key
        try:
            about = store.head(key)
        except Exception as error:
            raise _translated(uri, error) from None
        self.num_bytes = int(about["size"])
        self._etag = about["e_tag"]
        # Of this store's object of this name and size.
        etag = self._etag
        self.version = None if etag is None else json.dumps([place, uri, etag, self.num_bytes])

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """See `RangeReader`. Raises Unavailable where the object is not what it was."""
        end = min(offset + num_bytes, self.num_bytes)
        options: GetOptions = {"range": (offset, end)}
        if self._etag is not None:
            options["if_match"] = self._etag
        try:
            return bytes(self._store.get(self._key, options=options).bytes())
        except Exception as error:
            raise _translated(self.name, error) from None

    def close(self) -> None:
        """Nothing is held."""


def _store(bucket: str, access: RemoteAccess) -> S3Store:
    return open_bucket(
        bucket,
        endpoint=access.s3_endpoint,
        region=access.s3_region,
        timeout_seconds=access.timeout_seconds,
        max_retries=MAX_RETRIES,
        retry_seconds=access.timeout_seconds,
    )


def _translated(uri: str, error: Exception) -> BacktalError:
    """obstore's error as one of ours; its text may hold addresses and is not passed on."""
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError) or kind == "NotFoundError":
        return NotFound(f"uri {uri!r}: no such object")
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return PermissionDenied(f"uri {uri!r}: its store refuses it to us")
    if kind == "PreconditionError":
        return Unavailable(f"{uri} changed while it was read")
    return Unavailable(
        f"{uri}: its store cannot be read ({kind})", retry_after_seconds=RETRY_AFTER_SECONDS
    )
