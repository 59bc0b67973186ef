"""Index runs on a real Ray cluster of several processes on this machine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backtal.detection import DetectionAnswer
from backtal_indexing.answering import Answerer
from backtal_indexing.engines import Job
from backtal_indexing.layout import Index, IndexManifest
from backtal_indexing.shard import Rules
from backtal_indexing.verify import verify
from tests.index_poison import Poisoned, PoisonedAnswerer
from tests.index_runs import rows_of
from tests.integration.index_places import ray_cluster
from tests.integration.test_index_poison import drive, poison_index
from tests.unit.index_fakes import SHA

pytestmark = [pytest.mark.slow, pytest.mark.long]

NUM_NODES = 3


@dataclass(frozen=True)
class Slow:
    """Takes its time for a video, so that a node is lost in the midst of some."""

    seconds: float

    def connect(self) -> Answerer:
        return SlowAnswerer(self.seconds)


class SlowAnswerer(PoisonedAnswerer):
    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self._seconds = seconds

    def answer(self, uri: str, timeout_seconds: float) -> DetectionAnswer:
        time.sleep(self._seconds)
        return super().answer(uri, timeout_seconds)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU, each with worker processes of its own, and this one connected."""
    with ray_cluster(NUM_NODES) as started:
        import ray

        ray.init(address=started.address, log_to_driver=False)
        yield started


def library_of(folder: Path, num_videos: int) -> Path:
    folder.mkdir()
    for number in range(num_videos):
        (folder / f"{number:02}.mp4").write_text(str(number))
    return folder


def test_a_node_that_is_lost_costs_no_row(cluster: Any, tmp_path: Path) -> None:
    from backtal_indexing.engines.ray import RayEngine

    library = library_of(tmp_path / "library", 48)
    index = Index.create(str(tmp_path / "index"), IndexManifest.new(48, 32))
    job = Job(index.url, Slow(0.1), SHA, Rules())
    engine = RayEngine(job, address=None, cpus_per_task=0.5)
    assert engine.max_in_flight == 2 * 2 * NUM_NODES
    lost = threading.Thread(target=_lose_a_node, args=(cluster, index))
    lost.start()
    state = drive(index, library, job, engine)
    lost.join()
    assert state.num_videos["done"] + state.num_videos["unchanged"] == 48
    assert state.num_retries >= 1
    assert verify(index).problems == []

    beside = Index.create(str(tmp_path / "local"), index.manifest)
    from backtal_indexing.engines.local import LocalEngine

    other = Job(beside.url, Slow(0.0), SHA, Rules())
    drive(beside, library, other, LocalEngine(other, 2))
    assert rows_of(index) == rows_of(beside)


def test_a_video_that_kills_its_worker_on_ray(cluster: Any, tmp_path: Path) -> None:
    from backtal_indexing.engines.ray import RayEngine

    library = library_of(tmp_path / "library", 12)
    for name in ("kills.mp4", "locks.mp4"):
        (library / name).write_text(name)
    index = poison_index(tmp_path)
    rules = Rules(timeout_seconds=2.0, grace_seconds=1.0, max_attempts=2)
    job = Job(index.url, Poisoned(), SHA, rules)
    state = drive(index, library, job, RayEngine(job, address=None))
    assert state.num_videos == Counter(done=12, quarantined=2)


def _lose_a_node(cluster: Any, index: Index) -> None:
    """Kill a node, its worker processes too, once the first rows are there."""
    while len(index.videos_names()) < 6:
        time.sleep(0.01)
    node = cluster.worker_nodes.copy().pop()
    cluster.remove_node(node, allow_graceful=False)
