"""What a server refuses to take on, each by the limit that is reached; and its memory of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backtal.client import NO_RETRIES, Client
from backtal.errors import BacktalError, DeadlineExceeded, InvalidArgument, Unavailable
from backtal.manifest import Manifest
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_serving.settings import ServingSettings
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.made_videos import Layout, encode, steady

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def limited(tiny_repository: tuple[Path, Manifest]) -> Iterator[Client]:
    limits = {
        "video": {"max_bytes": 200_000, "max_pixels": 128 * 96, "max_frames": 20_000},
        "requests": {"at_once": 1, "queued": 2, "max_seconds": 4.0},
    }
    settings = ServingSettings.model_validate({"limits": limits})
    options = ServerOptions(repository=tiny_repository[0], settings=settings)
    with TritonServer(options) as server, Client(server.grpc_address, retries=NO_RETRIES) as client:
        yield client


def detect(client: Client, video: bytes) -> Any:
    return client.detect(video=video, bundle=BUNDLE)


def test_a_full_queue_says_so_at_once_and_loses_nothing(limited: Client) -> None:
    video = moving_colours(6.0)

    def ask(_: int) -> BacktalError | float:
        try:
            return float(detect(limited, video).duration_seconds)
        except BacktalError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    full = [answer for answer in answers if isinstance(answer, BacktalError)]
    assert answers.count(6.0) == 8 - len(full) >= 3
    assert full
    for error in full:
        assert isinstance(error, Unavailable)
        assert error.message == "the service is full"
        assert error.retry_after_seconds
    assert detect(limited, video).duration_seconds == 6.0


def test_a_request_that_takes_too_long_is_ended(limited: Client) -> None:
    # A few bytes that last for hours: 100 frames, each on show for 100 s.
    video = encode(Layout(stamps=range(0, 250_000, 2500)))
    with pytest.raises(DeadlineExceeded, match=r"longer than the 4 s that are allowed"):
        detect(limited, video)


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (b"x" * 200_001, "allowed are up to 200000"),
        (steady(2, size=(256, 192)), "256x192, 49152 pixels, allowed are up to 12288"),
    ],
)
def test_a_video_beyond_a_limit_is_refused(limited: Client, video: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        detect(limited, video)
