"""Half an hour of mixed requests: what the service holds is as flat at the end as at the start.

BACKTAL_SOAK_MINUTES is another length than 30.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, fields
from pathlib import Path

import httpx
import numpy as np
import pytest

from backtal.client import Client
from backtal.errors import DeadlineExceeded, InvalidArgument
from backtal.features import FeatureSequence
from tests.integration.process_tree import Held, held_by
from tests.integration.service import Service, serving
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours

MINUTES_VARIABLE = "BACKTAL_SOAK_MINUTES"
SAMPLE_SECONDS = 2.0
# The first part of the time, in which pools fill and allocators settle.
WARM_UP = 0.25
MAX_GROWTH = 1.05
# Of files, threads and processes, between medians: a decoder comes and goes.
MAX_MORE = 3


class Callers:
    """Threads that ask in a round until they are stopped; what went wrong, and how many answers."""

    def __init__(self, service: Service, video: bytes) -> None:
        self._service = service
        self._video = video
        self._stopped = threading.Event()
        self.errors: list[Exception] = []
        self.num_answers = 0
        kinds = (self._features, self._bytes, self._stream, self._http, self._damaged, self._late)
        self._threads = [
            threading.Thread(target=self._run, args=(kinds[index::2],)) for index in range(2)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kinds: tuple[Callable[[Client], None], ...]) -> None:
        with Client(self._service.grpc, timeout_seconds=60.0) as client:
            while not self._stopped.is_set():
                for kind in kinds:
                    try:
                        kind(client)
                        self.num_answers += 1
                    except Exception as error:
                        self.errors.append(error)

    def _features(self, client: Client) -> None:
        values = np.random.default_rng().normal(size=(FEATURE_DIM, 100)).astype(np.float32)
        client.detect(features=FeatureSequence.from_equal_parts(values, 64.0), bundle=BUNDLE)

    def _bytes(self, client: Client) -> None:
        client.detect(video=self._video, bundle=BUNDLE, with_cas=True)

    def _stream(self, client: Client) -> None:
        client.detect(video=self._video, bundle=BUNDLE, on_progress=lambda *_: None)

    def _http(self, client: Client) -> None:
        large = self._video + bytes(300_000)
        response = httpx.post(
            f"{self._service.http}/v1/detect", content=large, trust_env=False, timeout=60.0
        )
        response.raise_for_status()

    def _damaged(self, client: Client) -> None:
        with pytest.raises(InvalidArgument):
            client.detect(video=self._video[: len(self._video) // 3], bundle=BUNDLE)

    def _late(self, client: Client) -> None:
        with pytest.raises(DeadlineExceeded):
            client.detect(video=self._video, bundle=BUNDLE, timeout_seconds=0.02)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_what_is_held_stays_flat(
    triton: None, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seconds = 60.0 * float(os.environ.get(MINUTES_VARIABLE, "30"))
    repository = tmp_path / "repository"
    write_tiny_repository(repository)
    video = moving_colours(4.0)
    samples: list[tuple[float, Held]] = []
    with serving(repository, tmp_path) as service, closing(Callers(service, video)) as callers:
        callers.start()
        started = time.monotonic()
        while (at := time.monotonic() - started) < seconds:
            samples.append((at, held_by(service.process.pid)))
            time.sleep(SAMPLE_SECONDS)
    assert callers.errors == []
    assert len(service.events("ready")) == 1
    settled = [sample for sample in samples if sample[0] >= WARM_UP * seconds]
    times = np.array([at for at, _ in settled])
    table = np.array([astuple(held) for _, held in settled], np.float64)
    third = len(settled) // 3
    record_property("minutes", round(seconds / 60, 1))
    record_property("answers", callers.num_answers)
    grown = []
    for index, name in enumerate(field.name for field in fields(Held)):
        column = table[:, index]
        first, last = float(np.median(column[:third])), float(np.median(column[-third:]))
        slope = float(np.polyfit(times, column, 1)[0]) * 3600
        record_property(f"{name} first third", round(first))
        record_property(f"{name} last third", round(last))
        record_property(f"{name} an hour", round(slope))
        print(f"{name}: {first:.0f} -> {last:.0f}, {slope:+.0f} an hour")
        allowed = first * MAX_GROWTH if name.endswith("bytes") else first + MAX_MORE
        if last > allowed:
            grown.append(f"{name} grew from {first:.0f} to {last:.0f}")
    assert grown == []
