"""What a feature store is to those who use it, wherever its entries lie."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Protocol

from backtal.feature_store.entry import EntryWriter, Outcome, StoredFeatures


class FeatureStore(Protocol):
    """Entries by their key, for one request at a time. No call raises for what fails.

    counts: how often each outcome was; whoever reads them may clear them.
    """

    counts: Counter[Outcome]

    def find(self, key: str) -> StoredFeatures | None:
        """The entry of `key`, read and found whole; the caller closes it."""

    def writing(self, key: str) -> AbstractContextManager[EntryWriter]:
        """An entry in the making; without its `commit` nothing is kept of it."""
