"""Plans and shards: what is done, what is left alone, and what becomes of what fails."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtal.errors import (
    BacktalError,
    DeadlineExceeded,
    DecoderUnavailable,
    Internal,
    InvalidVideo,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceBusy,
    Unauthenticated,
    Unavailable,
)
from backtal_indexing.layout import Index, IndexManifest
from backtal_indexing.listing import Listing
from backtal_indexing.planning import Plan, Verdict, Wanted, plan_retry, plan_run
from backtal_indexing.shard import BundleChanged, Rules, RunEnds, process_shard
from backtal_indexing.status import failed_uris
from backtal_indexing.verify import verify
from tests.unit.index_fakes import SHA, URI, FakeService, Library, current_rows_of, index_library


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtal_indexing.store.os.fsync", lambda _: None)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(str(tmp_path / "index"), IndexManifest.new(10, 3))


def library_of(*numbers: int, version: str = "1") -> Library:
    return Library({URI.format(number): version for number in numbers})


def statuses(index: Index) -> dict[str, str]:
    return {uri: row["status"] for (uri, _), row in current_rows_of(index).items()}


def test_a_row_has_what_the_answer_says(index: Index) -> None:
    _, report = index_library(index, library_of(1), FakeService())
    ((key, row),) = current_rows_of(index).items()
    assert key == (URI.format(1), "tiny")
    assert row.pop("started_at") <= row.pop("finished_at")
    assert row == {
        "uri": URI.format(1),
        "identity": "given:1",
        "stamp": None,
        "bundle": "tiny",
        "bundle_sha256": SHA,
        "status": "done",
        "error_code": None,
        "error": None,
        "attempts": 1,
        "duration_seconds": 2.0,
        "frames_per_second": 25.0,
        "codec": "h264",
        "width": 64,
        "height": 48,
        "num_frames_decoded": 50,
        "warnings": [],
        "segments": [{"start_seconds": 0.5, "end_seconds": 1.5, "label": "jump", "score": 0.75}],
    }
    assert report.video_seconds == 2.0


def test_a_second_run_does_nothing_and_a_change_is_done(index: Index) -> None:
    library, service = library_of(*range(10)), FakeService()
    index_library(index, library, service)
    files = index.videos_names()
    plan, _ = index_library(index, library, service)
    assert (plan.counts.num_to_do, plan.counts.num_unchanged) == (0, 10)
    assert index.videos_names() == files
    library.content[URI.format(3)] = "2"
    library.content[URI.format(10)] = "1"
    del library.content[URI.format(5)]
    service.asked.clear()
    plan, report = index_library(index, library, service)
    assert sorted(service.asked) == [URI.format(10), URI.format(3)]
    assert report.num_videos == Counter(done=2, deleted=1)
    assert statuses(index)[URI.format(5)] == "deleted"
    # Back again: its row was of a video that was gone.
    library.content[URI.format(5)] = "1"
    index_library(index, library, service)
    assert set(statuses(index).values()) == {"done"}


def test_another_bundle_is_done_beside_and_a_new_one_of_the_name_instead(index: Index) -> None:
    library = library_of(1, 2)
    index_library(index, library, FakeService())
    index_library(index, library, FakeService("b" * 64), bundle="other")
    assert len(current_rows_of(index)) == 4
    plan, _ = index_library(index, library, FakeService("c" * 64))
    assert plan.counts.num_to_do == 2
    rows = current_rows_of(index)
    assert {row["bundle_sha256"] for (_, bundle), row in rows.items() if bundle == "tiny"} == {
        "c" * 64
    }
    # A video that is gone is so for every bundle.
    del library.content[URI.format(2)]
    plan, _ = index_library(index, library, FakeService("c" * 64))
    assert plan.counts.num_deleted == 2


def test_what_is_missing_may_be_kept(index: Index) -> None:
    index_library(index, library_of(1, 2), FakeService())
    plan, _ = index_library(index, library_of(1), FakeService(), marks_deleted=False)
    assert plan.counts.num_deleted == 0
    assert set(statuses(index).values()) == {"done"}


BROKEN = InvalidVideo("x holds no video stream")


@pytest.mark.parametrize(
    ("errors", "status", "attempts"),
    [
        ([BROKEN], "quarantined", 1),
        ([DeadlineExceeded("late")] * 3, "quarantined", 3),
        ([Internal("a bug")] * 3, "quarantined", 3),
        ([Internal("a bug")] * 2, "done", 3),
        ([DecoderUnavailable("its decoder was killed")] * 3, "failed", 3),
        ([PermissionDenied("outside")] * 3, "failed", 3),
        ([NotFound("gone")] * 3, "failed", 3),
        ([Unavailable("it changed"), BROKEN], "quarantined", 2),
    ],
)
def test_what_becomes_of_a_video_that_fails(
    index: Index, errors: list[BacktalError], status: str, attempts: int
) -> None:
    uri = URI.format(1)
    service = FakeService(errors={uri: list(errors)})
    _, report = index_library(index, library_of(0, 1, 2), service)
    row = current_rows_of(index)[uri, "tiny"]
    assert (row["status"], row["attempts"]) == (status, attempts)
    assert report.num_videos == Counter({"done": 2}) + Counter({status: 1})
    assert report.num_retries == attempts - 1
    if status != "done":
        assert (row["error_code"], row["error"]) == (errors[-1].grpc_code, errors[-1].message)
        assert [failure.uri for failure in report.failures] == [uri]
    # The next run: a quarantined one is left alone, a failed one tried again.
    service.asked.clear()
    index_library(index, library_of(0, 1, 2), service)
    assert service.asked == ([uri] if status == "failed" else [])
    row = current_rows_of(index)[uri, "tiny"]
    assert row["status"] == ("done" if status == "failed" else status)
    assert row["attempts"] == attempts + (status == "failed")
    assert verify(index).problems == []


def test_retry_tries_what_is_in_quarantine(index: Index) -> None:
    uri = URI.format(1)
    service = FakeService(errors={uri: [BROKEN]})
    library = library_of(0, 1)
    index_library(index, library, service)
    with pytest.raises(NotFound, match=r"0.mp4 is no video of"):
        failed_uris(index, [URI.format(0)])
    assert failed_uris(index, []) == {uri}
    with Plan() as plan:
        plan_retry(plan, index, failed_uris(index, []), Wanted("tiny", SHA))
        (shard,) = plan.shards()
    assert [video.uri for video in shard.videos] == [uri]
    assert shard.generation >= 0
    # A changed file is another video.
    library.content[uri] = "2"
    index_library(index, library, service)
    assert set(statuses(index).values()) == {"done"}


def test_a_service_that_is_not_ready_is_waited_for(index: Index, monkeypatch) -> None:
    monkeypatch.setattr("backtal_indexing.shard.POLL_SECONDS", 0.01)
    uri = URI.format(1)
    service = FakeService(errors={uri: [Unavailable("starting")] * 9}, ready=[False, True] * 9)
    index_library(index, library_of(1), service)
    # That was no attempt of the video's.
    assert current_rows_of(index)[uri, "tiny"]["attempts"] == 1


@pytest.mark.parametrize("error", [ResourceExhausted, ServiceBusy])
def test_a_turn_is_waited_for(index: Index, error: type[BacktalError], monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("backtal_indexing.shard.time.sleep", slept.append)
    uri = URI.format(1)
    full = error("the service is full: 64 requests wait", retry_after_seconds=2.0)
    index_library(index, library_of(1), FakeService(errors={uri: [full] * 20}))
    row = current_rows_of(index)[uri, "tiny"]
    assert (row["status"], row["attempts"]) == ("done", 1)
    assert len(slept) == 20
    assert all(2.0 <= seconds <= 3.0 for seconds in slept)


@pytest.mark.parametrize(
    ("service", "kind", "message"),
    [
        (FakeService("b" * 64), BundleChanged, "answers with bundle bbbbbbbbbbbb"),
        (FakeService(errors={URI.format(1): [Unauthenticated("no key")]}), RunEnds, "no key"),
        (
            FakeService(errors={URI.format(1): [Unavailable("x")]}, ready=[False] * 999),
            RunEnds,
            "not ready for 0.05 s",
        ),
    ],
)
def test_what_ends_a_run(
    index: Index, service: FakeService, kind: type[BacktalError], message: str, monkeypatch
) -> None:
    monkeypatch.setattr("backtal_indexing.shard.POLL_SECONDS", 0.01)
    library = library_of(1)
    with Plan() as plan, Listing([library]) as listing:
        plan_run(plan, index, listing, [library], Wanted("tiny", SHA))
        (shard,) = plan.shards()
    with pytest.raises(kind, match=message):
        process_shard(shard, index, service, SHA, Rules(patience_seconds=0.05))
    assert index.videos_names() == []


def test_two_runs_of_one_plan_write_each_video_once(index: Index) -> None:
    library = library_of(*range(9))
    first, second = FakeService(), FakeService()
    with Plan() as plan, Listing([library]) as listing:
        plan_run(plan, index, listing, [library], Wanted("tiny", SHA))
        shards = list(plan.shards(seed=1))
    for shard in shards:
        process_shard(shard, index, first, SHA, Rules())
        report = process_shard(shard, index, second, SHA, Rules())
        assert report.num_videos == Counter(unchanged=len(shard.videos))
    assert second.asked == []
    assert verify(index).problems == []


def test_a_verdict_is_written_and_the_video_not_asked_for(index: Index) -> None:
    library, service = library_of(1), FakeService()
    with Plan() as plan, Listing([library]) as listing:
        plan_run(plan, index, listing, [library], Wanted("tiny", SHA))
        (shard,) = plan.shards()
    told = Verdict("INTERNAL", "its worker died")
    given = type(shard)(shard.part, shard.generation, shard.videos, crashes=3, verdict=told)
    process_shard(given, index, service, SHA, Rules())
    row = current_rows_of(index)[URI.format(1), "tiny"]
    assert service.asked == []
    assert (row["status"], row["error"], row["attempts"]) == ("quarantined", "its worker died", 3)


def test_a_plan_does_not_depend_on_the_order_of_the_listing(index: Index) -> None:
    def shards(numbers: Any) -> set[Any]:
        library = library_of(*numbers)
        with Plan() as plan, Listing([library]) as listing:
            plan_run(plan, index, listing, [library], Wanted("tiny", SHA))
            return set(plan.shards())

    assert shards(range(40)) == shards(reversed(range(40)))


EVENTS = st.lists(
    st.dictionaries(st.integers(0, 5), st.sampled_from(["1", "2"]), min_size=1),
    min_size=1,
    max_size=4,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.data())
def test_after_each_run_the_index_is_the_library(
    tmp_path_factory: pytest.TempPathFactory, states: list[dict[int, str]], data: st.DataObject
) -> None:
    """Whatever comes, changes and goes between runs, and whatever part of a run is done."""
    folder = tmp_path_factory.mktemp("index")
    index = Index.create(str(folder), IndexManifest.new(8, 3))
    for state in states:
        library = Library({URI.format(number): version for number, version in state.items()})
        wanted = Wanted("tiny", SHA, videos_per_shard=2)
        with Plan() as plan, Listing([library]) as listing:
            plan_run(plan, index, listing, [library], wanted)
            # A run that is killed in its midst, then one that is not.
            num_done = data.draw(st.integers(0, plan.counts.num_shards))
            for _, shard in zip(range(num_done), plan.shards(seed=3), strict=False):
                process_shard(shard, index, FakeService(), SHA, Rules())
        index_library(index, library, FakeService())
        rows = current_rows_of(index)
        done = {uri: row["identity"] for (uri, _), row in rows.items() if row["status"] == "done"}
        assert done == {uri: f"given:{version}" for uri, version in library.content.items()}
        assert all(row["status"] in ("done", "deleted") for row in rows.values())
        assert verify(index).problems == []
