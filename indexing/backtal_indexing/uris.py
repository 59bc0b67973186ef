"""A video's URI, and what it names here."""

from __future__ import annotations

import os
from functools import lru_cache
from urllib.parse import quote_from_bytes

from backtal_indexing.store import S3_PREFIX, Store, normal_url


def file_uri(path: str) -> str:
    """The `file:` URI of an absolute path, as `Path.as_uri` spells it."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def path_of(uri: str) -> str | None:
    """The path of a `file:` URI, None of another."""
    return normal_url(uri) if uri.startswith("file:") else None


def s3_object(uri: str) -> tuple[Store, str]:
    """The store of an `s3:` URI's bucket, and the object's name in it."""
    bucket, _, name = uri.removeprefix(S3_PREFIX).partition("/")
    return _bucket(bucket), name


@lru_cache(maxsize=16)
def _bucket(name: str) -> Store:
    return Store(S3_PREFIX + name)
