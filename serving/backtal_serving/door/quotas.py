"""A caller's own quotas: requests a second, and requests at once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backtal.errors import ResourceExhausted
from backtal_serving.door.callers import Caller


class Quotas:
    """Counts by caller's name. A rate's bucket holds one second of it, and at least one request."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: defaultdict[str, int] = defaultdict(int)
        self._buckets: dict[str, tuple[float, float]] = {}

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count a request while the block runs. Raises ResourceExhausted, with when to retry."""
        running = self._running[caller.name]
        if caller.at_once is not None and running >= caller.at_once:
            raise ResourceExhausted(
                f"{running} requests of this key are running, allowed are {caller.at_once} at once",
                retry_after_seconds=1.0,
            )
        if caller.requests_per_second is not None:
            self._take_token(caller.name, caller.requests_per_second)
        self._running[caller.name] += 1
        try:
            yield
        finally:
            self._running[caller.name] -= 1

    def _take_token(self, name: str, rate: float) -> None:
        capacity, now = max(1.0, rate), self._now()
        tokens, since = self._buckets.get(name, (capacity, now))
        tokens = min(capacity, tokens + (now - since) * rate)
        if tokens < 1.0:
            self._buckets[name] = tokens, now
            raise ResourceExhausted(
                f"this key may send {rate:g} requests a second",
                retry_after_seconds=(1.0 - tokens) / rate,
            )
        self._buckets[name] = tokens - 1.0, now
