"""Who schedules shards: worker processes of this machine, or tasks of a Ray cluster.

An engine knows nothing of videos: it runs `work` somewhere and says how that ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from backtal.errors import BacktalError
from backtal_indexing.answering import Answerer, Answering
from backtal_indexing.layout import Index
from backtal_indexing.planning import Shard
from backtal_indexing.shard import Rules, ShardReport, process_shard


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told, once."""

    index_url: str
    answering: Answering
    bundle_sha256: str
    rules: Rules


@dataclass(frozen=True)
class Outcome:
    """How a shard ended: one of a report, an error that was raised, or how its worker died."""

    shard: Shard
    report: ShardReport | None = None
    error: BacktalError | None = None
    crash: str | None = None


class Engine(Protocol):
    """Runs shards side by side."""

    @property
    def max_in_flight(self) -> int:
        """How many shards keep all of its workers busy; it may change."""
        ...

    def submit(self, shard: Shard) -> None:
        """Have it worked on."""
        ...

    def wait(self, timeout_seconds: float) -> Outcome | None:
        """The next shard that ended; None where none did in time."""
        ...

    def stop(self) -> None:
        """End all workers, whatever they are at."""
        ...


def work(shard: Shard, job: Job) -> ShardReport:
    """What a worker does with a shard, on whichever engine."""
    index, answerer = _connected(job)
    return process_shard(shard, index, answerer, job.bundle_sha256, job.rules)


@lru_cache(maxsize=1)
def _connected(job: Job) -> tuple[Index, Answerer]:
    """A worker's connections: made once, for all of its shards."""
    return Index.open(job.index_url), job.answering.connect()
