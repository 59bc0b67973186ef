"""backtal's own clients through the front door."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.async_client import AsyncClient
from backtal.client import NO_RETRIES, Client, DetectionOptions, RetryPolicy
from backtal.detection import DetectionAnswer
from backtal.errors import (
    InvalidArgument,
    InvalidVideo,
    NotFound,
    PermissionDenied,
    ServiceBusy,
    Unavailable,
)
from backtal.http_client import AsyncHttpClient, HttpClient
from tests.integration.door.conftest import Fronted, at_once, running
from tests.integration.tiny_repository import BUNDLE, CLASSES
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow


def test_detect_and_stream_agree_with_asyncio(fronted: Fronted, video: bytes) -> None:
    async def ask() -> tuple[DetectionAnswer, list[Any]]:
        async with AsyncClient(fronted.grpc) as client:
            answer = await client.detect(video=video, with_cas=True)
            return answer, [update async for update in client.stream(video=video)]

    with Client(fronted.grpc, timeout_seconds=60.0) as client:
        answer = client.detect(video=video, with_cas=True)
        updates = list(client.stream(video=video))
    their_answer, their_updates = asyncio.run(ask())
    assert answer.segments == their_answer.segments != ()
    assert answer.cas is not None
    for told in (updates, their_updates):
        assert len(told) > 2
        assert [update.answer for update in told[:-1]] == [None] * (len(told) - 1)
        assert told[-1].answer.segments == answer.segments
        assert told[-2].total_seconds == 12.0


def test_segments_come_as_they_become_final(fronted: Fronted, tmp_path: Path) -> None:
    path = fronted.root / "long.mp4"
    path.write_bytes(moving_colours(80.0))
    # Of more, the answer would be the surest.
    wanted: dict[str, Any] = {
        "uri": path.as_uri(),
        "options": DetectionOptions(max_segments=1000),
    }

    async def ask() -> list[Any]:
        async with AsyncClient(fronted.grpc) as client:
            return [update async for update in client.stream(**wanted)]

    with Client(fronted.grpc, timeout_seconds=120.0) as client:
        updates = list(client.stream(**wanted))
    for told in (updates, asyncio.run(ask())):
        answer = told[-1].answer
        given = [segment for update in told for segment in update.segments]
        assert len(given) == len(set(given)) == len(answer.segments)
        assert set(given) == set(answer.segments)
        early = [(u.done_seconds, s) for u in told[:-1] for s in u.segments]
        assert early
        assert all(segment.end_seconds < done for done, segment in early)
        assert early[0][0] < 70.0


def test_errors_come_as_their_kinds(fronted: Fronted) -> None:
    with Client(fronted.grpc) as client:
        with pytest.raises(PermissionDenied, match="outside the allowed roots"):
            client.detect(uri="file:///etc/passwd", bundle=BUNDLE)
        with pytest.raises(PermissionDenied, match="outside the allowed roots"):
            list(client.stream(uri="file:///etc/passwd", bundle=BUNDLE))
        with pytest.raises(InvalidVideo):
            client.detect(video=b"no video", bundle=BUNDLE)
        with pytest.raises(InvalidVideo):
            list(client.stream(video=b"no video", bundle=BUNDLE))
        with pytest.raises(InvalidArgument, match="not 0 of them"):
            client.detect()


def test_retries_honour_the_hint(tiny_repository: Any, tmp_path: Path) -> None:
    limits = {"requests": {"at_once": 1, "queued": 1}}
    video = moving_colours(6.0)
    with running(tiny_repository[0], tmp_path, serving={"limits": limits}) as service:

        def ask(retries: RetryPolicy) -> Any:
            def one(_: int) -> float:
                with Client(service.grpc, retries=retries, timeout_seconds=60.0) as client:
                    return client.detect(video=video, bundle=BUNDLE).duration_seconds

            return at_once(6, one)

        impatient = ask(NO_RETRIES)
        refused = [error for error in impatient if isinstance(error, ServiceBusy)]
        assert refused
        assert impatient.count(6.0) == 6 - len(refused) >= 2
        assert all(error.retry_after_seconds for error in refused)
        assert ask(RetryPolicy(attempts=30)) == [6.0] * 6


def test_a_file_is_streamed_by_http(fronted: Fronted, tmp_path: Path, video: bytes) -> None:
    path = tmp_path / "my.mp4"
    path.write_bytes(video)
    options = DetectionOptions(max_segments=3, classes=CLASSES[:2])
    with (
        HttpClient(fronted.http, timeout_seconds=60.0) as by_http,
        Client(fronted.grpc) as by_grpc,
    ):
        answer = by_http.detect(path, options=options, with_cas=True)
        expected = by_grpc.detect(video=video, options=options, with_cas=True)
        assert answer.segments == expected.segments != ()
        np.testing.assert_array_equal(answer.cas, expected.cas)
        assert answer.classes == expected.classes
        path.write_bytes(b"no video")
        with pytest.raises(InvalidVideo, match="^video"):
            by_http.detect(path)
        with pytest.raises(NotFound, match="nowhere"):
            by_http.detect(tmp_path / "nowhere")

    async def ask() -> DetectionAnswer:
        async with AsyncHttpClient(fronted.http, timeout_seconds=60.0) as client:
            with pytest.raises(InvalidArgument, match="^video"):
                await client.detect(path)
            path.write_bytes(video)
            return await client.detect(path, options=options)

    assert asyncio.run(ask()).segments == expected.segments
    with (
        HttpClient("http://127.0.0.1:9", retries=NO_RETRIES) as nobody,
        pytest.raises(Unavailable, match="no server answers"),
    ):
        nobody.detect(path)
