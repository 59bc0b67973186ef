"""Features that were computed before: a known video costs its CAS, and decoding nothing.

key.py     under which name they are kept: all that they depend on, to the bit
entry.py   one video's features as a file
store.py   the folder: a limit of size, the least recently used removed; several processes
known.py   between an extractor and the folder

The store never fails a request: what does not read back is removed and counts as missing, what
cannot be written is left out.
"""

from __future__ import annotations

from backtal.feature_store.known import KnownVideos
from backtal.feature_store.store import FeatureStore, FeatureStoreSettings

__all__ = ["FeatureStore", "FeatureStoreSettings", "KnownVideos"]
