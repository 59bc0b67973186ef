"""Index runs: how near they come to the service's own rate, and what a large library costs.

    index_over_service             videos a second of `LocalEngine`, over what the same service
                                   answers as many callers that do nothing else
    driver_memory_100000_over_100  the driver's peak, runs of 100,000 and 100 videos that are
                                   answered at once
    plan_million_seconds           from a list of 1,000,000 URIs to shards on the disk
    resume_million_seconds         the same where all of them are done: "nothing to do"
    reindex_over_first             seconds of a run by kinetics400, over those of a second one by
                                   another head on its backbone, whose features were kept

    python benchmarks/index.py [--quick] [--json FILE] [--repository DIR]

--quick: a tenth of the videos and URIs; the names of the figures stay.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backtal.client import Client
from backtal_indexing.answering import Service
from backtal_indexing.engines import Job, Outcome
from backtal_indexing.engines.local import LocalEngine
from backtal_indexing.layout import Index, IndexManifest, file_name, part_of
from backtal_indexing.listing import Listing
from backtal_indexing.metrics import MetricsSettings, RunMetrics
from backtal_indexing.part_log import parquet_of
from backtal_indexing.planning import Plan, Shard, Wanted, plan_run
from backtal_indexing.progress import JsonLines
from backtal_indexing.run import Driver, RunState
from backtal_indexing.shard import Rules, ShardReport
from backtal_indexing.sources import parse_source

BUNDLE = "tiny"
CALLERS = 4
ROUNDS = 3
VIDEOS_PER_SHARD = 64
MILLION = 1_000_000


def main() -> None:
    # Not at the top: processes whose memory is measured import this module.
    import machine

    parser = machine.options(__doc__)
    parser.add_argument("--repository", type=Path, default=Path("var/repository"), metavar="DIR")
    arguments = parser.parse_args()
    small = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory(prefix="backtal-bench-") as name:
        folder = Path(name)
        figures: dict[str, float | str] = {}
        figures |= rate(folder, 240 // small)
        figures |= again(folder, arguments.repository, 2 if arguments.quick else 4)
        figures |= memory(folder, 100_000 // small)
        figures |= planning(folder, MILLION // small)
    rows = [[key, f"{value:.3g}"] for key, value in figures.items() if not isinstance(value, str)]
    machine.show("Index runs", ["figure", "value"], rows)
    machine.write(arguments.json, figures)


def rate(folder: Path, num_videos: int) -> dict[str, float]:
    """Videos a second of a run, and of callers straight to the service, by turns."""
    from backtal_serving.embedded import EmbeddedServer
    from tests.index_runs import write_library
    from tests.integration.tiny_repository import write_tiny_repository

    manifest = write_tiny_repository(folder / "repository")
    library = folder / "library"
    write_library(library, num_videos)
    videos = sorted(library.iterdir())
    best = {"service": 0.0, "index": 0.0}
    log_file = folder / "triton.log"
    with EmbeddedServer(folder / "repository", [library], log_file=log_file) as server:
        service = Service(server.grpc_address, BUNDLE)
        call_all(service, videos[: 2 * CALLERS])
        for number in range(ROUNDS):
            best["service"] = max(best["service"], call_all(service, videos))
            index = Index.create(
                str(folder / f"index {number}"), IndexManifest.new(num_videos, VIDEOS_PER_SHARD)
            )
            seconds = index_all(index, library, service, manifest.sha256)
            best["index"] = max(best["index"], num_videos / seconds)
    return {
        "service_videos_per_second": best["service"],
        "index_videos_per_second": best["index"],
        "index_over_service": best["index"] / best["service"],
    }


def again(folder: Path, source: Path, num_videos: int) -> dict[str, float]:
    """The seconds of a first run by a real backbone, and of one by another head after it."""
    from backtal_serving.embedded import EmbeddedServer
    from tests.integration.videos import moving_colours

    library = folder / "long"
    library.mkdir()
    for number in range(num_videos):
        path = library / f"{number}.mp4"
        path.write_bytes(moving_colours(10.0 * num_videos, seed=number))
    repository = folder / "two heads"
    bundles = two_heads(source, repository)
    seconds = []
    with EmbeddedServer(repository, [library], feature_folder=folder / "features") as server:
        index = Index.create(str(folder / "again"), IndexManifest.new(num_videos, VIDEOS_PER_SHARD))
        for name, sha256 in bundles:
            service = Service(server.grpc_address, name)
            seconds.append(index_all(index, library, service, sha256))
    return {
        "first_run_seconds": seconds[0],
        "second_run_seconds": seconds[1],
        "reindex_over_first": seconds[0] / seconds[1],
    }


def two_heads(source: Path, repository: Path) -> list[tuple[str, str]]:
    """A repository of kinetics400 and the same with another head: their names and hashes."""
    import onnx
    from onnx import numpy_helper

    from backtal.repository import load_bundle, network_path
    from backtal_export.model_folders import copy_networks
    from backtal_export.public_models import write_public_models

    first = load_bundle(source, "kinetics400")
    copy_networks(source, first, repository)
    model = onnx.load(network_path(source, first.cas.model))
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype.kind == "f":
            weights.CopyFrom(numpy_helper.from_array(values * values.dtype.type(0.9), weights.name))
    content = model.SerializeToString()
    sha256 = hashlib.sha256(content).hexdigest()
    head = first.cas.model_copy(update={"model": f"cas-{sha256[:8]}", "sha256": sha256})
    old, new = repository / first.cas.model, repository / head.model
    shutil.copytree(old, new)
    (new / "1" / "model.onnx").write_bytes(content)
    config = (old / "config.pbtxt").read_text()
    (new / "config.pbtxt").write_text(config.replace(first.cas.model, head.model))
    description = first.description.model_copy(update={"name": "another-head"})
    second = first.model_copy(update={"description": description, "cas": head})
    for manifest in (first, second):
        write_public_models(repository, manifest)
    return [(one.description.name, one.sha256) for one in (first, second)]


def call_all(service: Service, videos: list[Path]) -> float:
    """Videos a second of CALLERS processes that ask for nothing but the answers."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CALLERS + 1)
    shares = [videos[number::CALLERS] for number in range(CALLERS)]
    processes = [context.Process(target=_call, args=(service, share, barrier)) for share in shares]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    return len(videos) / (time.perf_counter() - started)


def _call(service: Service, videos: list[Path], barrier: Any) -> None:
    with Client(service.address) as client:
        client.is_ready()
        barrier.wait()
        for video in videos:
            client.detect(uri=video.as_uri(), bundle=service.bundle)


def index_all(index: Index, library: Path, service: Service, sha256: str) -> float:
    """Seconds of a run from its first answer asked for to its end: what a long one consists of."""
    rules = Rules()
    job = Job(index.url, service, sha256, rules)
    engine = LocalEngine(job, CALLERS)
    warm_up(engine)
    source = parse_source(str(library))
    with Plan() as plan, Listing([source]) as listing:
        plan_run(plan, index, listing, [source], Wanted(service.bundle, sha256))
        driver = Driver(plan, engine, rules)
        started = time.perf_counter()
        state = driver.run()
        seconds = time.perf_counter() - started
    assert state.num_videos == Counter(done=len(list(library.iterdir()))), state
    return seconds


def warm_up(engine: LocalEngine) -> None:
    """Start all workers: an empty shard is done at once, but for the first of each."""
    for _ in range(4 * CALLERS):
        engine.submit(Shard(0, -1, ()))
    for _ in range(4 * CALLERS):
        engine.wait(60.0)


@dataclass
class InstantEngine:
    """Has every shard done as soon as it is asked."""

    max_in_flight: int = 8
    waiting: deque[Shard] = field(default_factory=deque)

    def submit(self, shard: Shard) -> None:
        self.waiting.append(shard)

    def wait(self, timeout_seconds: float) -> Outcome | None:  # noqa: ARG002
        shard = self.waiting.popleft()
        report = ShardReport(Counter(done=len(shard.videos)), 60.0 * len(shard.videos))
        return Outcome(shard, report=report)

    def stop(self) -> None:
        self.waiting.clear()


def memory(folder: Path, num_videos: int) -> dict[str, float]:
    """The peak of the driver's memory, in a process of its own for each size."""
    peaks = {
        number: in_process(_drive, folder / f"driver {number}", number)
        for number in (100, num_videos)
    }
    return {
        "driver_memory_100_mb": peaks[100],
        "driver_memory_100000_mb": peaks[num_videos],
        "driver_memory_100000_over_100": peaks[num_videos] / peaks[100],
    }


def _drive(folder: Path, num_videos: int) -> float:
    """Plan and drive a run with its watchers; the peak in MB."""
    listed = write_list(folder, num_videos)
    index = Index.create(str(folder / "index"), IndexManifest.new(num_videos, VIDEOS_PER_SHARD))
    source = parse_source(str(listed))
    with (
        Plan() as plan,
        Listing([source]) as listing,
        RunMetrics("bench", MetricsSettings()) as metrics,
    ):
        plan_run(plan, index, listing, [source], Wanted(BUNDLE, "0" * 64))
        state: RunState = Driver(plan, InstantEngine(), Rules(), (JsonLines(), metrics)).run()
    assert state.num_videos["done"] == num_videos
    return peak_mb()


def peak_mb() -> float:
    """The most memory that this process had: not ru_maxrss, which begins with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) / 1000
    raise LookupError("/proc/self/status has no VmHWM")


def planning(folder: Path, num_uris: int) -> dict[str, float]:
    """Seconds from a list of URIs to shards: of a new index, and of one that has them all."""
    listed = write_list(folder / "million", num_uris)
    new = in_process(_plan, folder / "new", listed, num_uris, num_uris)
    index = Index.create(str(folder / "full"), IndexManifest.new(num_uris, VIDEOS_PER_SHARD))
    write_rows(index, num_uris)
    resumed = in_process(_plan, Path(index.url), listed, num_uris, 0)
    return {
        "plan_million_seconds": new,
        "resume_million_seconds": resumed,
        "index_files": float(len(index.videos_names())),
    }


def _plan(folder: Path, listed: Path, num_uris: int, num_to_do: int) -> float:
    started = time.perf_counter()
    source = parse_source(str(listed))
    with Plan() as plan, Listing([source]) as listing:
        index = Index.create(str(folder), IndexManifest.new(num_uris, VIDEOS_PER_SHARD))
        plan_run(plan, index, listing, [source], Wanted(BUNDLE, "0" * 64))
        assert plan.counts.num_to_do == num_to_do
    return time.perf_counter() - started


def uris(number: int) -> Iterator[str]:
    """URIs of an object store, none of which is looked at."""
    for video in range(number):
        yield f"s3://library/2026/{video % 365:03}/camera {video % 97}/recording-{video:08}.mp4"


def write_list(folder: Path, number: int) -> Path:
    """A manifest of so many videos, each with its identity."""
    folder.mkdir(parents=True)
    path = folder / "videos.csv"
    with path.open("w") as file:
        file.write("uri,identity\n")
        for video, uri in enumerate(uris(number)):
            file.write(f"{uri},{video:032x}\n")
    return path


def write_rows(index: Index, number: int) -> None:
    """An index that has them all, in files as runs of VIDEOS_PER_SHARD leave them."""
    num_parts = index.manifest.num_parts
    parts: dict[int, list[dict[str, Any]]] = {}
    for video, uri in enumerate(uris(number)):
        parts.setdefault(part_of(uri, num_parts), []).append(row(uri, f"given:{video:032x}"))
    folder = Path(index.url) / "videos"
    folder.mkdir()
    for part, rows in parts.items():
        for generation, start in enumerate(range(0, len(rows), VIDEOS_PER_SHARD)):
            data = parquet_of(rows[start : start + VIDEOS_PER_SHARD])
            (Path(index.url) / file_name(part, generation)).write_bytes(data)


def row(uri: str, identity: str) -> dict[str, Any]:
    """A row of VIDEOS with five segments."""
    segment = {"start_seconds": 1.0, "end_seconds": 2.5, "label": "jump", "score": 0.5}
    now = datetime.now(timezone.utc)
    return {
        "uri": uri,
        "identity": identity,
        "stamp": None,
        "bundle": BUNDLE,
        "bundle_sha256": "0" * 64,
        "status": "done",
        "attempts": 1,
        "duration_seconds": 60.0,
        "frames_per_second": 25.0,
        "codec": "h264",
        "width": 1920,
        "height": 1080,
        "num_frames_decoded": 1500,
        "warnings": [],
        "started_at": now,
        "finished_at": now,
        "segments": [segment] * 5,
    }


def in_process(work: Callable[..., float], *arguments: Any) -> float:
    """What `work` gives in a new process: its memory is its own, its caches are cold."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    result: float = receiver.recv()
    process.join()
    return result


def _send(sender: Any, work: Callable[..., float], arguments: tuple[Any, ...]) -> None:
    sender.send(work(*arguments))


if __name__ == "__main__":
    main()
