"""Worker processes of this machine, each with one shard; for a dead one pebble starts another."""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import signal
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from pebble import ProcessExpired, ProcessPool

from backtal.errors import BacktalError, Internal
from backtal_indexing.engines import Job, Outcome, work
from backtal_indexing.planning import Shard
from backtal_indexing.shard import ShardReport

PR_SET_PDEATHSIG = 1
# faulthandler's, which is what watches a worker from within.
WATCHDOG_EXIT_CODE = 1
# A shard waits behind each worker's, so that none is idle while the driver looks elsewhere.
SHARDS_PER_WORKER = 2


class LocalEngine:
    """`num_workers` processes; they end with this one."""

    def __init__(self, job: Job, num_workers: int) -> None:
        self._job = job
        self._num_workers = num_workers
        self._num_in_flight = 0
        self._ended: queue.Queue[tuple[Shard, Future[ShardReport]]] = queue.Queue()
        # gRPC does not live through a fork; a fork server has it loaded and not yet used.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["backtal_indexing.engines"])
        self._pool = ProcessPool(num_workers, initializer=_end_with_parent, context=context)

    @property
    def max_in_flight(self) -> int:
        """See `Engine`."""
        return SHARDS_PER_WORKER * self._num_workers

    def submit(self, shard: Shard) -> None:
        """See `Engine`."""
        future = self._pool.schedule(
            work, args=(shard, self._job), timeout=self._longest_seconds(shard)
        )
        self._num_in_flight += 1
        future.add_done_callback(lambda ended: self._ended.put((shard, ended)))

    def wait(self, timeout_seconds: float) -> Outcome | None:
        """See `Engine`."""
        try:
            shard, future = self._ended.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        self._num_in_flight -= 1
        try:
            return Outcome(shard, report=future.result())
        except ProcessExpired as died:
            return Outcome(shard, crash=self._told(died.exitcode))
        except FutureTimeout:
            return Outcome(shard, crash="it did not end in its time")
        except BacktalError as error:
            return Outcome(shard, error=error)
        except Exception as error:
            return Outcome(shard, error=Internal(f"{type(error).__name__}: {error}"))

    def stop(self) -> None:
        """See `Engine`."""
        if self._num_in_flight:
            self._pool.stop()  # type: ignore[no-untyped-call]
        else:
            # Nobody is at work; one that is just starting is not to be cut off.
            self._pool.close()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _told(self, exit_code: int | None) -> str:
        if exit_code is not None and exit_code < 0:
            return f"its worker was killed by {signal.Signals(-exit_code).name}"
        if exit_code == WATCHDOG_EXIT_CODE:
            rules = self._job.rules
            seconds = rules.timeout_seconds + rules.grace_seconds
            return f"it hung, and its worker ended itself after {seconds:g} s"
        return f"its worker ended with exit code {exit_code}"

    def _longest_seconds(self, shard: Shard) -> float:
        """What a worker that keeps to its rules never takes: the last of the watchdogs."""
        rules = self._job.rules
        for_each = (rules.timeout_seconds + rules.grace_seconds) * (rules.max_attempts + 2)
        return for_each * len(shard.videos) + rules.patience_seconds


def _end_with_parent() -> None:
    """Have the kernel kill this worker with the process that forked it, and so with the driver."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
