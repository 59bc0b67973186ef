"""When a client sends a request again, and how long it waits for the answer in all."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from backtal.errors import BacktalError, Unavailable

# What gRPC and HTTP would take for no deadline at all is none that has passed.
LEAST_SECONDS = 0.001


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is sent again: for Unavailable only, at most `attempts` times in all.

    The wait is the server's hint, else `first_seconds`, twice as long each time; and up to half
    as long again by chance, so that callers who were refused together do not come back together.
    """

    attempts: int = 3
    first_seconds: float = 0.1
    max_seconds: float = 30.0

    def delay_seconds(
        self, error: BacktalError, num_tried: int, left_seconds: float | None
    ) -> float | None:
        """How long to wait after the attempt that failed with `error`; None is give up."""
        if not isinstance(error, Unavailable) or num_tried >= self.attempts:
            return None
        seconds = error.retry_after_seconds
        if seconds is None:
            seconds = self.first_seconds * 2 ** (num_tried - 1)
        seconds = min(seconds, self.max_seconds) * random.uniform(1.0, 1.5)
        return None if left_seconds is not None and seconds >= left_seconds else seconds


NO_RETRIES = RetryPolicy(attempts=1)


class Patience:
    """The attempts of one request. `timeout_seconds` bounds them together; None does not."""

    def __init__(self, retries: RetryPolicy, timeout_seconds: float | None) -> None:
        self._retries = retries
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._num_tried = 0

    @property
    def left_seconds(self) -> float | None:
        """For the next attempt; None for as long as it takes."""
        if self._deadline is None:
            return None
        return max(self._deadline - time.monotonic(), LEAST_SECONDS)

    def delay_after(self, error: BacktalError) -> float:
        """Seconds to wait after an attempt that ended with `error`; raises it to give up."""
        self._num_tried += 1
        delay_seconds = self._retries.delay_seconds(error, self._num_tried, self.left_seconds)
        if delay_seconds is None:
            raise error
        return delay_seconds
