"""A bounded queue that is fair between callers.

Some requests run, the others wait, each caller in a line of its own; free places go round the
lines. Where all places to wait are taken, the newest request of the longest line gives way to a
caller whose line is shorter: a flood fills its own line only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backtal.errors import ServiceBusy

# How fast the mean of a turn's seconds follows: of the last ten turns, about.
SMOOTHING = 0.1
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 60.0


@dataclass(eq=False)
class _Waiter:
    caller: str
    num_bytes: int
    turn: asyncio.Future[None]


class Turns:
    """`at_once` turns at a time; `max_waiting` requests and `max_bytes` of theirs wait.

    Of one event loop. `what` is named in refusals.
    """

    def __init__(self, what: str, *, at_once: int, max_waiting: int, max_bytes: int) -> None:
        self._what = what
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._lines: dict[str, deque[_Waiter]] = {}
        self._running = 0
        self._mean_seconds = 0.5
        self.waiting = 0
        self.waiting_bytes = 0

    @asynccontextmanager
    async def turn(self, caller: str, num_bytes: int = 0) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises ServiceBusy where the queue is full."""
        await self._wait(caller, num_bytes)
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)
            self._pass_on()

    def check_room(self, caller: str) -> None:
        """Raise ServiceBusy where `caller` would be refused now."""
        if self.waiting >= self._max_waiting and self._longest_line(caller) is None:
            raise self._full()

    def retry_after_seconds(self) -> float:
        """When a place may be free: it grows with the queue and with what a turn takes."""
        seconds = (self.waiting + 1) * self._mean_seconds / self._at_once
        return min(max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    async def _wait(self, caller: str, num_bytes: int) -> None:
        if self._running < self._at_once and not self.waiting:
            self._running += 1
            return
        self._make_room(caller, num_bytes)
        waiter = _Waiter(caller, num_bytes, asyncio.get_running_loop().create_future())
        self._lines.setdefault(caller, deque()).append(waiter)
        self.waiting += 1
        self.waiting_bytes += num_bytes
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._pass_on()
            else:
                self._leave(waiter)
            raise

    def _make_room(self, caller: str, num_bytes: int) -> None:
        while self.waiting >= self._max_waiting or self.waiting_bytes + num_bytes > self._max_bytes:
            longest = self._longest_line(caller)
            if longest is None:
                raise self._full()
            waiter = longest[-1]
            self._leave(waiter)
            if not waiter.turn.done():
                waiter.turn.set_exception(self._full())

    def _longest_line(self, caller: str) -> deque[_Waiter] | None:
        """The longest line, if it is longer than the caller's own would be."""
        own = len(self._lines.get(caller, ()))
        longest = max(self._lines.values(), key=len, default=deque[_Waiter]())
        return longest if len(longest) > own + 1 else None

    def _leave(self, waiter: _Waiter) -> None:
        line = self._lines.get(waiter.caller, deque())
        if waiter in line:
            line.remove(waiter)
            self._forget(waiter, line)

    def _forget(self, waiter: _Waiter, line: deque[_Waiter]) -> None:
        self.waiting -= 1
        self.waiting_bytes -= waiter.num_bytes
        if not line:
            del self._lines[waiter.caller]

    def _pass_on(self) -> None:
        """Give the turn that ended to the next caller's first, which then is the last."""
        while self._lines:
            caller, line = next(iter(self._lines.items()))
            waiter = line.popleft()
            self._forget(waiter, line)
            if line:
                self._lines[caller] = self._lines.pop(caller)
            # One that was cancelled just now has not left yet.
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                return
        self._running -= 1

    def _full(self) -> ServiceBusy:
        return ServiceBusy(
            f"the service is full: {self.waiting} requests wait for {self._what}",
            retry_after_seconds=round(self.retry_after_seconds(), 2),
        )
