"""The store of jobs: who is next, what is refused, what a restart finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtal.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from backtal_serving.door.jobs.store import JobStore


def make(folder: Path, *, clock: list[float] | None = None, **options: int) -> JobStore:
    ticks = clock or [0.0]

    def now() -> float:
        ticks[0] += 1.0
        return ticks[0]

    bounds = {"max_queued": 10, "max_bytes": 1000, **options}
    return JobStore(folder / "jobs", now=now, **bounds)


def video(folder: Path, num_bytes: int = 10) -> Path:
    path = folder / "upload"
    path.write_bytes(bytes(num_bytes))
    return path


def test_jobs_go_round_the_callers(tmp_path: Path) -> None:
    store = make(tmp_path)
    for caller in ("flood", "flood", "flood", "polite", "polite"):
        store.add(caller, {}, "x")
    started = [job.caller for _ in range(5) if (job := store.start_next())]
    assert started == ["flood", "polite", "flood", "polite", "flood"]
    assert store.start_next() is None


def test_a_restart_runs_what_was_running_and_keeps_what_ended(tmp_path: Path) -> None:
    store = make(tmp_path)
    done, _ = store.add("ann", {"n": 1}, "x", video=video(tmp_path))
    cut, _ = store.add("ann", {"n": 2}, "x", video=video(tmp_path))
    assert store.start_next() == store.get(done.id, "ann")
    assert store.end(done.id, "succeeded", {"segments": []})
    store.start_next()
    (tmp_path / "jobs" / ("f" * 32)).write_bytes(b"an upload whose row was not written")
    store.close()
    again = make(tmp_path)
    assert again.get(done.id, "ann").result == {"segments": []}
    job = again.start_next()
    assert job is not None
    assert (job.id, job.request) == (cut.id, {"n": 2})
    assert again.video_of(cut.id).exists()
    names = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert {name for name in names if not name.startswith("jobs.sqlite")} == {cut.id}


def test_an_end_is_written_once(tmp_path: Path) -> None:
    store = make(tmp_path)
    job, _ = store.add("ann", {}, "x", video=video(tmp_path))
    store.start_next()
    assert store.end(job.id, "cancelled", None)
    assert not store.end(job.id, "succeeded", {})
    store.queue_again(job.id)
    assert store.get(job.id, "ann").state == "cancelled"
    assert not store.video_of(job.id).exists()


def test_idempotency_is_the_callers_own(tmp_path: Path) -> None:
    store = make(tmp_path)
    first, is_new = store.add("ann", {}, "x", idempotency_key="k")
    again, is_new_again = store.add("ann", {}, "x", idempotency_key="k")
    other, _ = store.add("bob", {}, "x", idempotency_key="k")
    assert (first.id == again.id, is_new, is_new_again) == (True, True, False)
    assert other.id != first.id
    with pytest.raises(InvalidArgument, match="another request"):
        store.add("ann", {}, "y", idempotency_key="k")


def test_what_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path, max_queued=2)
    store.add("ann", {}, "x", video=video(tmp_path, 600))
    with pytest.raises(Unavailable, match="600 bytes"):
        store.add("bob", {}, "x", video=video(tmp_path, 500))
    store.add("ann", {}, "x")
    with pytest.raises(ResourceExhausted, match="2 jobs of this key"):
        store.add("ann", {}, "x")
    job, _ = store.add("bob", {}, "x")
    for name, caller in ((job.id, "ann"), ("nothing", "ann")):
        with pytest.raises(NotFound):
            store.get(name, caller)


def test_results_are_forgotten_after_their_time(tmp_path: Path) -> None:
    clock = [0.0]
    store = make(tmp_path, clock=clock)
    job, _ = store.add("ann", {}, "x")
    store.end(job.id, "failed", {})
    store.remove_old(100.0)
    assert store.get(job.id, "ann").state == "failed"
    clock[0] += 200.0
    store.remove_old(100.0)
    with pytest.raises(NotFound):
        store.get(job.id, "ann")


def test_a_database_that_cannot_be_written_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    job, _ = store.add("ann", {"n": 1}, "x", video=video(tmp_path))
    # As where its disk is full: no page more.
    store._database.execute("PRAGMA max_page_count = 1")
    large = {"n": "x" * 100_000}
    with pytest.raises(Unavailable, match="full") as caught:
        store.add("ann", large, "y", video=video(tmp_path))
    assert caught.value.retry_after_seconds
    with pytest.raises(Unavailable, match="full"):
        store.end(job.id, "succeeded", large)
    assert store.video_of(job.id).exists()
    names = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert {name for name in names if not name.startswith("jobs.sqlite")} == {job.id}
    store._database.execute("PRAGMA max_page_count = 100000")
    assert store.end(job.id, "succeeded", large)
    assert not store.video_of(job.id).exists()
