"""Work one item ahead: a thread makes the next items while the caller uses this one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Iterates over `items` in a thread of its own, at most `depth` finished ones ahead.

    An error of the iterable is raised where the item would have come. Leaving the context stops
    the thread after the item it is at and waits for it.

    started, ended: by `time.monotonic`, of the first item and of the last so far. busy_seconds:
    spent on them.
    """

    def __init__(self, items: Iterable[Item], *, depth: int = 1, name: str = "prefetch") -> None:
        self._items = items
        self._ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.started = self.ended = time.monotonic()
        self.busy_seconds = 0.0

    def __enter__(self) -> Prefetch[Item]:
        self.started = self.ended = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            # The thread may be waiting for room to put its item.
            while not self._ready.empty():
                self._ready.get()
            self._thread.join(0.01)

    def __iter__(self) -> Iterator[Item]:
        while (got := self._ready.get()) is not None:
            if isinstance(got, BaseException):
                try:
                    raise got
                finally:
                    # Else the error holds this frame, and it the error: with all the callers'
                    # frames, and the video in them, till the garbage is collected.
                    del got
            yield got[0]

    def _work(self) -> None:
        try:
            items = iter(self._items)
            while not self._stopped.is_set():
                started = time.monotonic()
                item = next(items, self)
                self.ended = time.monotonic()
                self.busy_seconds += self.ended - started
                if isinstance(item, Prefetch):
                    break
                self._ready.put((item,))
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)
