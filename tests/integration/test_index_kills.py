"""Index runs killed at any moment and started again end with the rows of an unbroken one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from backtal_indexing.layout import Index, IndexManifest
from backtal_indexing.rows import read_files
from backtal_indexing.verify import verify
from tests.index_runs import (
    Kills,
    Running,
    local_workers,
    ray_workers,
    rows_of,
    running,
    write_library,
)
from tests.integration.conftest import Served
from tests.integration.index_places import ray_cluster, s3_bucket

pytestmark = pytest.mark.slow

WORKERS = 3
Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        s3_bucket(tmp_path_factory.mktemp("s3"), monkeypatch) as url,
    ):
        yield url


@pytest.fixture
def cluster() -> Iterator[str]:
    with ray_cluster(2) as started:
        yield started.address


def num_answered(served: Served) -> int:
    """Videos that the service has answered so far."""
    lines = served.log_file.read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    # A run that begins asks for the bundle's hash by features: no frame of that.
    return sum(
        record.get("outcome") == "OK" and record["num_frames_decoded"] > 0 for record in records
    )


def check_kills(
    served: Served,
    folder: Path,
    tell: Tell,
    *,
    num_videos: int,
    num_kills: int,
    seed: int,
    to: str | None = None,
    engine: Sequence[str] = (),
    workers_of: Callable[[Running], list[int]] = local_workers,
) -> None:
    """The test; `to` is the index that is killed at, by default one in `folder`."""
    library = served.root / f"library {num_videos}"
    write_library(library, num_videos)
    options = ["--server", served.address, "--workers", str(WORKERS)]
    unbroken = folder / "unbroken"
    with running(["run", str(library), "--to", str(unbroken), *options], folder / "log") as run:
        assert run.finish() == 0, run.log.read_text()
        (plan,) = run.events("plan")
    reference = Index.open(str(unbroken))
    expected = rows_of(reference)
    assert len(expected) == num_videos

    index = Index.create(to or str(folder / "killed"), IndexManifest.new(num_videos, 32))
    words = ["run", str(library), "--to", index.url, *options, *engine]
    kills = Kills(words, index, folder, seed, workers_of)
    before = num_answered(served)
    kills.run(num_kills, plan["shards"] * 9 // 10)
    found = rows_of(index)

    assert len(found) == len({row["uri"] for row in found}) == num_videos
    for mine, theirs in zip(found, expected, strict=True):
        segments, others = mine.pop("segments"), theirs.pop("segments")
        assert mine == theirs
        assert len(segments) == len(others)
        for segment, other in zip(segments, others, strict=True):
            assert segment == pytest.approx(other, abs=1e-4)
    assert verify(index).problems == []

    # Each worker has one shard in hand.
    sizes = [table.num_rows for _, table in read_files(reference, reference.videos_names())]
    in_flight = (kills.num_of_driver * WORKERS + kills.num_of_workers) * max(sizes)
    repeated = num_answered(served) - before - num_videos
    tell(f"{kills.num_of_driver} + {kills.num_of_workers} kills, {repeated} videos repeated")
    assert 0 <= repeated <= in_flight


def test_a_killed_run_goes_on(served: Served, tmp_path: Path, tell: Tell) -> None:
    check_kills(served, tmp_path, tell, num_videos=24, num_kills=3, seed=1)


def test_two_runs_at_once_write_each_video_once(served: Served, tmp_path: Path) -> None:
    num_videos = 24
    library = served.root / f"library {num_videos}"
    write_library(library, num_videos)
    index = Index.create(str(tmp_path / "index"), IndexManifest.new(num_videos, 32))
    words = ["run", str(library), "--to", index.url, "--server", served.address]
    words += ["--workers", "2"]
    before = num_answered(served)
    with running(words, tmp_path / "1") as first, running(words, tmp_path / "2") as second:
        assert (first.finish(), second.finish()) == (0, 0), first.log.read_text()
        summaries = [run.events("summary")[0] for run in (first, second)]
    rows = rows_of(index)
    assert len(rows) == len({row["uri"] for row in rows}) == num_videos
    assert verify(index).problems == []
    twice = num_answered(served) - before - num_videos
    passed_over = sum(summary.get("unchanged", 0) for summary in summaries)
    print(f"{twice} videos were answered twice, {passed_over} passed over")
    assert 0 <= twice < num_videos


@pytest.mark.long
def test_a_run_killed_at_twenty_moments_goes_on(served: Served, tmp_path: Path, tell: Tell) -> None:
    check_kills(served, tmp_path, tell, num_videos=300, num_kills=20, seed=20)


def test_a_killed_run_goes_on_in_s3(served: Served, s3: str, tmp_path: Path, tell: Tell) -> None:
    check_kills(served, tmp_path, tell, num_videos=8, num_kills=1, seed=2, to=f"{s3}/short")


@pytest.mark.long
def test_a_run_killed_at_twenty_moments_goes_on_in_s3(
    served: Served, s3: str, tmp_path: Path, tell: Tell
) -> None:
    check_kills(served, tmp_path, tell, num_videos=300, num_kills=20, seed=21, to=f"{s3}/long")


@pytest.mark.long
def test_a_run_killed_at_twenty_moments_goes_on_on_ray(
    served: Served, cluster: str, tmp_path: Path, tell: Tell
) -> None:
    check_kills(
        served,
        tmp_path,
        tell,
        num_videos=300,
        num_kills=20,
        seed=22,
        engine=["--engine", "ray", "--address", cluster],
        workers_of=ray_workers,
    )
