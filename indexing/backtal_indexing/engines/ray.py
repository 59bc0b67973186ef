"""Tasks of a Ray cluster: Ray Core, a task a shard, and no retry but ours."""

from __future__ import annotations

from typing import Any

import ray

from backtal.errors import BacktalError, Internal
from backtal_indexing.engines import Job, Outcome, work
from backtal_indexing.planning import Shard

SHARDS_PER_SLOT = 2
# A worker waits for the service most of the time.
CPUS_PER_TASK = 0.5


class RayEngine:
    """Tasks of `cpus_per_task` on the cluster at `address`; None starts one on this machine."""

    def __init__(self, job: Job, address: str | None, cpus_per_task: float = CPUS_PER_TASK) -> None:
        self._cpus_per_task = cpus_per_task
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        self._job = ray.put(job)
        # Retries are the driver's: it knows a shard that kills its worker from a lost node.
        self._work = ray.remote(num_cpus=cpus_per_task, max_retries=0)(work)
        self._shards: dict[Any, Shard] = {}

    @property
    def max_in_flight(self) -> int:
        """See `Engine`: it follows the cluster as that grows and shrinks."""
        slots = int(
            ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
            / self._cpus_per_task
        )
        return SHARDS_PER_SLOT * max(slots, 1)

    def submit(self, shard: Shard) -> None:
        """See `Engine`."""
        self._shards[self._work.remote(shard, self._job)] = shard

    def wait(self, timeout_seconds: float) -> Outcome | None:
        """See `Engine`."""
        ready, _ = ray.wait(list(self._shards), num_returns=1, timeout=timeout_seconds)
        if not ready:
            return None
        shard = self._shards.pop(ready[0])
        try:
            return Outcome(shard, report=ray.get(ready[0]))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            known = isinstance(cause, BacktalError)
            return Outcome(shard, error=cause if known else Internal(str(cause)))
        except ray.exceptions.RayError as error:
            return Outcome(
                shard, crash=f"its worker hung, died or was lost ({type(error).__name__})"
            )

    def stop(self) -> None:
        """See `Engine`."""
        for task in self._shards:
            ray.cancel(task, force=True)
        ray.shutdown()
