"""Jobs: asked for, watched, cancelled, kept over a restart, one for each idempotency key."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.door.conftest import Fronted, running
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 60.0


@pytest.fixture
def http(fronted: Fronted) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fronted.http, timeout=60.0, trust_env=False) as client:
        yield client


def ended(http: httpx.Client, location: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            job: dict[str, Any] = http.get(location).raise_for_status().json()
            if job["state"] not in ("queued", "running"):
                return job
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the job did not end"
        time.sleep(0.05)


def by_time(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(segments, key=lambda one: (one["start_seconds"], one["label"], one["score"]))


def wait_until_running(http: httpx.Client, location: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := http.get(location).json()["state"]) != "running":
        assert state == "queued"
        assert time.monotonic() < deadline, "the job did not start"
        time.sleep(0.02)


def test_a_job_gives_what_the_request_gives(http: httpx.Client, video: bytes) -> None:
    at_once = http.post("/v1/detect", content=video, params={"max_segments": 3}).json()
    accepted = http.post("/v1/jobs", content=video, params={"max_segments": 3})
    assert accepted.status_code == 202
    assert accepted.json()["state"] in ("queued", "running")
    job = ended(http, accepted.headers["location"])
    assert job["state"] == "succeeded"
    assert job["result"]["segments"] == at_once["segments"]


def test_events_lead_to_the_end(http: httpx.Client, fronted: Fronted) -> None:
    video, options = moving_colours(80.0), {"max_segments": 1000}
    location = http.post("/v1/jobs", content=video, params=options).headers["location"]
    events: list[tuple[str, dict[str, Any]]] = []
    with http.stream("GET", f"{location}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append((name, json.loads(line[6:])))
    done = [body["done_seconds"] for name, body in events if "done_seconds" in body]
    assert done == sorted(done)
    assert max(done) > 10.0
    name, body = events[-1]
    assert (name, body["state"]) == ("end", "succeeded")
    segments = [event for name, event in events if name == "segment"]
    assert by_time(segments) == by_time(body["result"]["segments"]) != []
    # Some of them long before the end.
    names = [name for name, _ in events]
    assert "progress" in names[names.index("segment") :]
    assert fronted.spooled() == []


def test_a_job_that_fails_says_why(http: httpx.Client) -> None:
    location = http.post("/v1/jobs", json={"uri": "file:///etc/passwd"}).headers["location"]
    job = ended(http, location)
    assert (job["state"], job["problem"]["code"]) == ("failed", "PERMISSION_DENIED")
    assert "outside the allowed roots" in job["problem"]["detail"]


def test_a_cancelled_job_ends_soon(http: httpx.Client, fronted: Fronted) -> None:
    location = http.post("/v1/jobs", content=moving_colours(120.0)).headers["location"]
    wait_until_running(http, location)
    assert http.delete(location).json()["state"] == "cancelled"
    after = http.post("/v1/jobs", content=moving_colours(1.0)).headers["location"]
    assert ended(http, after)["state"] == "succeeded"
    assert http.get(location).json()["state"] == "cancelled"
    assert [path.name for path in (fronted.folder / "jobs").iterdir() if len(path.name) == 32] == []


def test_an_idempotency_key_makes_one_job(http: httpx.Client, video: bytes) -> None:
    headers = {"idempotency-key": "monday-7"}
    places = {
        http.post("/v1/jobs", content=video, headers=headers).headers["location"] for _ in range(3)
    }
    assert len(places) == 1
    other = http.post("/v1/jobs", content=video + b"x", headers=headers)
    assert (other.status_code, other.json()["code"]) == (400, "INVALID_ARGUMENT")
    ended(http, places.pop())


def test_an_unknown_job_is_not_found(http: httpx.Client) -> None:
    for name in ("0" * 32, "..%2F..%2Fetc%2Fpasswd", "' OR 1=1 --"):
        assert http.get(f"/v1/jobs/{name}").status_code == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_survive_the_door(
    tiny_repository: Any, tmp_path: Path, number: signal.Signals
) -> None:
    videos = [moving_colours(seconds) for seconds in (60.0, 11.0, 12.0)]
    with (
        running(tiny_repository[0], tmp_path) as service,
        httpx.Client(base_url=service.http, timeout=60.0, trust_env=False) as http,
    ):
        places = [http.post("/v1/jobs", content=video).headers["location"] for video in videos]
        wait_until_running(http, places[0])
        os.kill(service.door.process_id, number)
        jobs = [ended(http, place) for place in places]
        assert [job["state"] for job in jobs] == ["succeeded"] * 3
        assert [job["result"]["duration_seconds"] for job in jobs] == [60.0, 11.0, 12.0]
        assert service.spooled() == []
        with sqlite3.connect(service.folder / "jobs" / "jobs.sqlite") as database:
            rows = database.execute("SELECT count(*), count(DISTINCT id) FROM jobs").fetchone()
        assert rows == (3, 3)
