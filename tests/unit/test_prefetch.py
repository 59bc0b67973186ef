from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from backtal.prefetch import Prefetch


def test_items_come_in_order() -> None:
    with Prefetch(range(20)) as items:
        assert list(items) == list(range(20))


def test_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    got = []
    with pytest.raises(ValueError, match="broken"), Prefetch(failing()) as items:
        got.extend(iter(items))
    assert got in ([], [1])


def test_an_error_keeps_nothing_of_its_callers_once_it_is_dealt_with() -> None:
    class Held:
        """What a caller has in hand: a request, a whole video."""

    def failing() -> Iterator[int]:
        raise ValueError("broken")
        yield 1

    def call() -> weakref.ref[Held]:
        held = Held()
        with pytest.raises(ValueError, match="broken"), Prefetch(failing()) as items:
            list(items)
        return weakref.ref(held)

    gc.disable()
    try:
        assert call()() is None
    finally:
        gc.enable()


def test_leaving_early_stops_the_thread_and_makes_no_more_items() -> None:
    made = []

    def counting() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    with Prefetch(counting(), name="counting") as items:
        assert next(iter(items)) == 0
    assert len(made) < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "counting"]


def test_no_more_than_its_depth_is_made_ahead() -> None:
    made = threading.Semaphore(0)

    def counting() -> Iterator[int]:
        for number in range(10):
            made.release()
            yield number

    with Prefetch(counting(), depth=1):
        assert made.acquire(timeout=5)
        assert made.acquire(timeout=5)
        # One is ready, one waits for room.
        assert not made.acquire(timeout=0.1)
