"""The fair queue and the quotas, without a server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.errors import ResourceExhausted, Unavailable
from backtal_serving.door.callers import Caller
from backtal_serving.door.quotas import Quotas
from backtal_serving.door.turns import Turns


def make(at_once: int = 1, max_waiting: int = 8, max_bytes: int = 1000) -> Turns:
    return Turns("tests", at_once=at_once, max_waiting=max_waiting, max_bytes=max_bytes)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def taking(turns: Turns, order: list[str]) -> Callable[[str], Awaitable[None]]:
    async def take(name: str) -> None:
        async with turns.turn(name):
            order.append(name)
            await asyncio.sleep(0)

    return take


def test_turns_go_round_the_callers() -> None:
    async def run() -> list[str]:
        order: list[str] = []
        take = taking(make(), order)
        await asyncio.gather(*(take(name) for name in ("a", "a", "a", "a", "b", "b", "c")))
        return order

    assert asyncio.run(run()) == ["a", "a", "b", "c", "a", "b", "a"]


def test_a_flood_gives_way_to_a_shorter_line() -> None:
    async def run() -> tuple[list[str], int]:
        order: list[str] = []
        turns = make(max_waiting=4)
        take = taking(turns, order)
        async with turns.turn("flood"):
            flood = [asyncio.create_task(take("flood")) for _ in range(10)]
            await asyncio.sleep(0)
            polite = asyncio.create_task(take("polite"))
            await asyncio.sleep(0)
        results = await asyncio.gather(*flood, polite, return_exceptions=True)
        refused = [error for error in results if isinstance(error, Unavailable)]
        assert results[-1] is None
        assert all(error.retry_after_seconds for error in refused)
        return order, len(refused)

    order, num_refused = asyncio.run(run())
    # Four of the flood waited, and the last of them gave way.
    assert Counter(order) == {"flood": 3, "polite": 1}
    assert order.index("polite") == 1
    assert num_refused == 7


def test_the_hint_grows_with_the_queue() -> None:
    async def run() -> list[float]:
        turns = make(max_waiting=100)
        take = taking(turns, [])
        hints, tasks = [], []
        for _ in range(3):
            hints.append(turns.retry_after_seconds())
            tasks += [asyncio.create_task(take("a")) for _ in range(10)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return hints

    hints = asyncio.run(run())
    assert hints == sorted(hints)
    assert hints[-1] > hints[0]


def test_bytes_that_wait_are_bounded() -> None:
    async def run() -> None:
        turns = make(max_bytes=100)
        async with turns.turn("a"):
            waiting = asyncio.create_task(enter(turns, 80))
            await settle()
            with pytest.raises(Unavailable, match="full"):
                await enter(turns, 30)
        await waiting
        assert (turns.waiting, turns.waiting_bytes) == (0, 0)

    async def enter(turns: Turns, num_bytes: int) -> None:
        async with turns.turn("a", num_bytes):
            pass

    asyncio.run(run())


@given(st.lists(st.sampled_from(["start a", "start b", "start c", "cancel", "end"]), max_size=60))
def test_no_turn_is_lost_and_no_more_than_allowed_run(steps: list[str]) -> None:
    async def run() -> None:
        turns = make(at_once=2, max_waiting=5)
        running: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []

        async def work(name: str) -> None:
            async with turns.turn(name):
                done = asyncio.Event()
                running.append(done)
                assert len(running) <= 2
                try:
                    await done.wait()
                finally:
                    running.remove(done)

        for step in steps:
            if step.startswith("start"):
                tasks.append(asyncio.create_task(work(step[-1])))
            elif step == "cancel" and tasks:
                tasks[len(tasks) // 2].cancel()
            elif step == "end" and running:
                running[0].set()
            if len(steps) % 2:
                await asyncio.sleep(0)
        for _ in range(200):
            if running:
                running[0].set()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, (Unavailable, asyncio.CancelledError))
        assert (turns.waiting, turns.waiting_bytes) == (0, 0)
        # Both places can be had at once again.
        async with turns.turn("z"), turns.turn("z"):
            pass

    asyncio.run(asyncio.wait_for(run(), 10.0))


def test_a_rate_fills_again() -> None:
    clock = [0.0]
    quotas = Quotas(now=lambda: clock[0])
    caller = Caller(name="a", requests_per_second=2.0)

    def ask() -> None:
        with quotas.request(caller):
            pass

    ask()
    ask()
    with pytest.raises(ResourceExhausted, match="2 requests a second") as caught:
        ask()
    assert caught.value.retry_after_seconds == pytest.approx(0.5)
    clock[0] += 0.5
    ask()
    with pytest.raises(ResourceExhausted):
        ask()


def test_requests_at_once_are_counted_until_they_end() -> None:
    quotas = Quotas()
    caller = Caller(name="a", at_once=1)
    with quotas.request(caller), pytest.raises(ResourceExhausted), quotas.request(caller):
        pass
    with quotas.request(caller):
        pass
