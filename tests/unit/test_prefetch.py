from __future__ import annotations

import threading
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
