"""A short video does not wait for a long one: both are worked on, and the cores are shared."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtal.client import Client
from tests.integration.door.conftest import running
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours, repeated

pytestmark = pytest.mark.slow

MINUTES = 60
MOST_OVER_IDLE = 3.0


@pytest.mark.parametrize("num_requests", [5, pytest.param(30, marks=pytest.mark.long)])
def test_a_short_video_beside_a_long_one(
    tiny_repository: Any, tmp_path: Path, num_requests: int, tell: Callable[[str], None]
) -> None:
    with (
        running(tiny_repository[0], tmp_path) as service,
        Client(service.grpc, timeout_seconds=1200.0) as client,
    ):
        long, short = service.root / "long.mp4", service.root / "short.mp4"
        long.write_bytes(repeated(moving_colours(60.0), MINUTES))
        short.write_bytes(moving_colours(10.0))

        def seconds() -> float:
            started = time.monotonic()
            assert client.detect(uri=short.as_uri(), bundle=BUNDLE).duration_seconds == 10.0
            return time.monotonic() - started

        seconds()
        idle = statistics.median(seconds() for _ in range(num_requests))
        is_under_way, is_enough = threading.Event(), threading.Event()

        def watch_the_long_one() -> None:
            with Client(service.grpc) as other:
                for update in other.stream(uri=long.as_uri(), bundle=BUNDLE):
                    is_under_way.set()
                    if is_enough.is_set():
                        return
                    assert update.answer is None, "the long video was too short"

        watching = threading.Thread(target=watch_the_long_one)
        watching.start()
        assert is_under_way.wait(30.0)
        try:
            beside = statistics.median(seconds() for _ in range(num_requests))
            assert watching.is_alive()
        finally:
            is_enough.set()
            watching.join()
    tell(f"10 s: idle {idle:.2f} s, beside {MINUTES} minutes {beside:.2f} s")
    assert beside <= MOST_OVER_IDLE * idle
