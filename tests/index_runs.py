"""Runs of `backtal index` in processes of their own, which can be killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from backtal_indexing.layout import Index
from backtal_indexing.rows import read_parts
from tests.integration.videos import moving_colours

PATIENCE_SECONDS = 300.0
# What two runs of one library need not agree in.
OF_THE_RUN = ("attempts", "started_at", "finished_at", "stamp")


def write_library(folder: Path, num_videos: int) -> None:
    """Short videos, no two alike; the last of them settled, so that stamps are trusted."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_videos):
        seconds = 1.0 + number % 4 * 0.5
        name = f"video {number:03}.mp4"
        (folder / name).write_bytes(moving_colours(seconds, seed=number))


@dataclass
class Running:
    """A running command and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its events of one name, so far."""
        lines = self.log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record["event"] == name]

    def finish(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(PATIENCE_SECONDS)


def local_workers(run: Running) -> list[int]:
    """A run's worker processes: children of its fork server."""
    found = [grand for child in children(run.process.pid) for grand in children(child)]
    return [process_id for process_id in found if is_running(process_id)]


def ray_workers(_: Running) -> list[int]:
    """The processes of this one's Ray cluster that are at a task of ours."""
    found = [grand for child in children(os.getpid()) for grand in children(child)]
    return [process_id for process_id in found if _command(process_id).startswith("ray::work")]


@contextmanager
def running(words: Sequence[str], log: Path) -> Iterator[Running]:
    """`backtal index` with these words and `--log json`."""
    command = [sys.executable, "-m", "backtal.cli", "index", *words, "--log", "json"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield Running(process, log)
    finally:
        process.kill()
        process.wait()


@dataclass
class Kills:
    """Kills at moments by chance, of the driver and of a worker by turns."""

    words: Sequence[str]
    index: Index
    log_folder: Path
    seed: int
    workers_of: Callable[[Running], list[int]] = local_workers
    num_of_driver: int = 0
    num_of_workers: int = 0

    def run(self, num_kills: int, num_files: int) -> None:
        """Run, kill `num_kills` times while about `num_files` files come to be, run to the end."""
        chance = random.Random(self.seed)
        moments = sorted(chance.randrange(num_files) for _ in range(num_kills))
        number = 0
        while True:
            number += 1
            log = self.log_folder / f"{number:02}.log"
            with running(self.words, log) as run:
                while moments and self._wait_for(moments[0], run):
                    moments.pop(0)
                    time.sleep(chance.uniform(0.0, 0.2))
                    if self._kill(run, chance):
                        break
                else:
                    assert run.finish() == 0, log.read_text()
                    assert not moments, f"the run ended before kills at {moments} of {num_files}"
                    return

    def _wait_for(self, num_files: int, run: Running) -> bool:
        """Whether, while the run goes on, so many files have come to be."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while run.process.poll() is None:
            if len(self.index.videos_names()) >= num_files and run.events("plan"):
                return True
            assert time.monotonic() < deadline, run.log.read_text()
            time.sleep(0.01)
        return False

    def _kill(self, run: Running, chance: random.Random) -> bool:
        """Kill one of the two; whether it was the driver."""
        workers = self.workers_of(run)
        if workers and self.num_of_driver > self.num_of_workers:
            self.num_of_workers += 1
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
            return False
        self.num_of_driver += 1
        run.process.kill()
        run.process.wait()
        if self.workers_of is local_workers:
            _wait_for_end(workers)
        return True


def rows_of(index: Index) -> list[dict[str, Any]]:
    """All rows of an index but for what is of the run that made them, by URI and bundle."""
    tables = [table for _, _, table in read_parts(index, index.videos_names())]
    rows = pa.concat_tables(tables).drop_columns(list(OF_THE_RUN)).to_pylist()
    return sorted(rows, key=lambda row: (row["uri"], row["bundle"]))


def children(process_id: int) -> list[int]:
    """The children of a process."""
    try:
        tasks = list(Path(f"/proc/{process_id}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(process_id: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _wait_for_end(process_ids: Sequence[int]) -> None:
    deadline = time.monotonic() + 10.0
    while any(is_running(process_id) for process_id in process_ids):
        assert time.monotonic() < deadline, "workers outlived their driver"
        time.sleep(0.01)
