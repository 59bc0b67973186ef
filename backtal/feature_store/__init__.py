"""Features that were computed before: a known video costs its CAS, and decoding nothing.

key.py       under which name they are kept: all that they depend on, to the bit
entry.py     one video's features as bytes
store.py     what a store is
folder.py    a folder: the least recently used removed; several processes of one machine
bucket.py    a prefix of an S3 bucket: the oldest removed; several machines
known.py     between an extractor and a store

The store never fails a request: what does not read back is made again, what cannot be written is
left out.
"""

from __future__ import annotations

from backtal.feature_store.bucket import Bucket
from backtal.feature_store.folder import Folder
from backtal.feature_store.known import KnownVideos
from backtal.feature_store.settings import FeatureStoreSettings
from backtal.feature_store.store import FeatureStore

__all__ = ["FeatureStore", "FeatureStoreSettings", "KnownVideos", "open_store"]


def open_store(settings: FeatureStoreSettings) -> FeatureStore:
    """The store that `settings` name.

    Raises InvalidArgument for a folder that cannot be made or written to; MissingDependency for a
    prefix without obstore.
    """
    if settings.folder is not None:
        return Folder(settings.folder, settings.max_bytes)
    assert settings.prefix is not None
    return Bucket(
        settings.prefix,
        settings.max_bytes,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        timeout_seconds=settings.timeout_seconds,
    )
