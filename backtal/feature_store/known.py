"""Between an extractor and the feature store: a video is looked up, or decoded and put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from backtal.decoded import Decoded
from backtal.feature_store.entry import StoredFeatures
from backtal.feature_store.store import FeatureStore
from backtal.features import FloatArray
from backtal.run_control import RunControl
from backtal.video import Source
from backtal.video.identity import ContentIdentity, content_identity

Take: TypeAlias = Callable[[FloatArray], None]
# Decodes, giving features to the first and what was found to the second while the file is open.
Decode: TypeAlias = Callable[[Take, Callable[[Decoded], None]], Decoded]


class KnownVideos:
    """The videos whose features are in `store`; `key_of` names them by their content."""

    def __init__(self, store: FeatureStore, key_of: Callable[[str], str]) -> None:
        self._store = store
        self._key_of = key_of

    def pass_on(
        self,
        source: Source,
        take: Take,
        decode: Decode,
        *,
        allow_partial: bool,
        control: RunControl,
    ) -> Decoded:
        """Give a video's features to `take`, from the store or else from `decode`.

        What is decoded is kept, unless a part is missing or the file changed meanwhile. `source`
        is closed here or by `decode`. Raises Cancelled, DeadlineExceeded, and what `decode` does.
        """
        try:
            with control.measure("feature_store"):
                identity = content_identity(source, before_piece=control.check_cancelled)
                found = None if identity is None else self._store.find(self._key_of(identity.text))
        except BaseException:
            source.close()
            raise
        if found is not None:
            source.close()
            with found:
                return _pass_on_stored(found, source.name, take, control)
        if identity is None:
            return decode(take, lambda _: None)
        return self._decode_and_keep(source, identity, take, decode, allow_partial, control)

    def _decode_and_keep(
        self,
        source: Source,
        identity: ContentIdentity,
        take: Take,
        decode: Decode,
        allow_partial: bool,
        control: RunControl,
    ) -> Decoded:
        with self._store.writing(self._key_of(identity.text)) as entry:

            def take_and_write(values: FloatArray) -> None:
                take(values)
                with control.measure("feature_store"):
                    entry.add(values)

            def keep(decoded: Decoded) -> None:
                is_partial = allow_partial and bool(decoded.warnings)
                with control.measure("feature_store"):
                    if not is_partial and identity.still_holds(source):
                        entry.commit(decoded)

            return decode(take_and_write, keep)


def _pass_on_stored(found: StoredFeatures, name: str, take: Take, control: RunControl) -> Decoded:
    batches = found.batches()
    while True:
        control.check_cancelled()
        with control.measure("feature_store"):
            values = next(batches, None)
        if values is None:
            return found.decoded_as(name)
        take(values)
