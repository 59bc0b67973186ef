"""How much of what the stages can do is served, by the real door and Triton on this machine.

A load generator of Python threads asks for the same video by its `uri`, 1, 2, 4 and 8 callers at
a time. In the same run each stage is measured alone: the decoders of the sandbox, the backbone at
the served batch size, backend, precision and threads, the CAS and localization. On a CPU the stages
share the cores, so that 1 / (the sum of their seconds a frame) is what can be served;
`served_over_stages` is the throughput over that, at the number of callers where it is best. A stage
that keeps all cores busy when it is alone cannot be beaten; one that does not (a decoder of few
threads) leaves room for more than 1.

    python benchmarks/serving.py [--quick] [--callers 1 2 4 8] [--json FILE]

`--quick` takes a clip of six seconds. Triton's `perf_analyzer` asks a served bundle the same:
`perf_analyzer -m demo -u HOST:8001 -i grpc --input-data uri.json --concurrency-range 1:8`.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from machine import options, show, timed, write
from numpy.typing import NDArray

from backtal.client import Client
from backtal.extraction import CLIPS_PER_BATCH, clip_batches
from backtal.features import FeatureSequence
from backtal.manifest import Manifest
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle
from backtal.video import open_video
from backtal.video.sandbox import DecoderPool
from backtal_export.repository import write_bundle
from backtal_serving.door.service import behind_door, door_of, private_folder
from backtal_serving.door.settings import DoorSettings
from backtal_serving.server_options import ServerOptions
from backtal_serving.settings import ServingSettings
from backtal_training.corpus import CorpusSettings, plan, render

BUNDLE = "demo"
CHECKPOINT = Path(__file__).resolve().parents[1] / "demo" / "checkpoint"
CALLERS = (1, 2, 4, 8)
QUICK_SECONDS = 6
REPEATS = 2
STAGES = ("decode", "rgb", "cas", "localize")


@dataclass(frozen=True)
class Load:
    """What callers saw: the seconds of each request and of all together."""

    latency_seconds: list[float]
    wall_seconds: float
    stage_seconds: dict[str, float]

    def video_seconds_a_second(self, video_seconds: float) -> float:
        """Throughput."""
        return len(self.latency_seconds) * video_seconds / self.wall_seconds


def main() -> None:
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    parser.add_argument("--rounds", type=int, help="of everything, by turns (3; quick: 1)")
    parser.add_argument("--repository", type=Path, help="with the bundle demo; else it is exported")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    with tempfile.TemporaryDirectory(prefix="backtal-bench-") as name:
        folder = Path(name)
        repository = arguments.repository or exported(folder / "repository")
        (folder / "videos").mkdir()
        video = folder / "videos" / "video.mp4"
        draw(video, QUICK_SECONDS if arguments.quick else None)
        figures = measure(folder, repository, video, arguments.callers, rounds)
    report(figures, arguments.callers)
    write(arguments.json, figures)


def exported(folder: Path) -> Path:
    """A repository with the demo's bundle."""
    write_bundle(folder, CHECKPOINT, say=print)
    return folder


def draw(path: Path, seconds: int | None) -> None:
    """The shortest video of the generated corpus's test split, or its first `seconds`."""
    settings = CorpusSettings()
    shortest = min(
        (video for video in plan(settings).videos if video.subset == "test"),
        key=lambda video: video.num_frames,
    )
    if seconds is not None:
        shortest = replace(shortest, num_frames=seconds * shortest.frames_per_second)
    render(shortest, path, settings)


def measure(
    folder: Path, repository: Path, video: Path, callers: Sequence[int], rounds: int
) -> dict[str, float]:
    """All figures, by name: medians of the rounds."""
    manifest = load_bundle(repository, BUNDLE)
    alone: list[dict[str, float]] = []
    loads: dict[int, list[Load]] = {number: [] for number in callers}
    with serving(folder, repository, video.parent) as address:
        ask(address, video, 1)
        for _ in range(rounds):
            # By turns, so that what else the machine does meets all of them.
            alone.append(stages_alone(repository, manifest, video))
            for number in callers:
                loads[number].append(ask(address, video, number))
    return summary(alone, loads, *length_of(video))


def summary(
    alone: list[dict[str, float]],
    loads: dict[int, list[Load]],
    video_seconds: float,
    num_frames: int,
) -> dict[str, float]:
    """The figures of all rounds."""
    figures: dict[str, float] = {"video_seconds": video_seconds}
    for stage in STAGES:
        spent = statistics.median(one.get(stage, 0.0) for one in alone)
        figures[f"{stage}_alone_ms_a_frame"] = 1000 * spent / num_frames
    total = sum(figures[f"{stage}_alone_ms_a_frame"] for stage in STAGES)
    figures |= {f"{stage}_share": figures[f"{stage}_alone_ms_a_frame"] / total for stage in STAGES}
    for number, found in loads.items():
        rates = [load.video_seconds_a_second(video_seconds) for load in found]
        latencies = [seconds for load in found for seconds in load.latency_seconds]
        figures[f"video_seconds_a_second_{number}"] = statistics.median(rates)
        figures[f"latency_seconds_{number}"] = statistics.median(latencies)
        figures[f"latency_p95_seconds_{number}"] = float(np.quantile(latencies, 0.95))
        figures[f"served_over_stages_{number}"] = statistics.median(
            rate * sum(one.values()) / video_seconds for rate, one in zip(rates, alone, strict=True)
        )
        for stage in STAGES:
            spent = statistics.median(load.stage_seconds.get(stage, 0.0) for load in found)
            figures[f"{stage}_served_ms_a_frame_{number}"] = 1000 * spent / num_frames
    best = max(figures[f"served_over_stages_{number}"] for number in loads)
    figures["served_over_stages"] = best
    if {1, 2} <= loads.keys():
        ratio = figures["latency_seconds_2"] / figures["latency_seconds_1"]
        figures["second_caller_over_first"] = ratio
    return figures


@contextmanager
def serving(folder: Path, repository: Path, videos: Path) -> Iterator[str]:
    """The door's gRPC address, as `backtal serve` would open it."""
    with private_folder() as private:
        door = DoorSettings(grpc_port=0, http_port=0, triton_address="", folder=folder / "state")
        options = ServerOptions(
            repository=repository,
            settings=ServingSettings(allowed_roots=(videos,)),
            log_file=folder / "triton.log",
        )
        triton = behind_door(options, private, door.spool_folder)
        with triton, door_of(triton, door, folder / "door.log") as process:
            yield process.grpc_address


def ask(address: str, video: Path, callers: int) -> Load:
    """Each caller asks twice, without a pause."""
    latency: list[float] = []
    stages: list[dict[str, float]] = []

    def call() -> None:
        with Client(address, timeout_seconds=600.0) as client:
            for _ in range(2):
                started = time.monotonic()
                answer = client.detect(uri=video.as_uri(), bundle=BUNDLE)
                latency.append(time.monotonic() - started)
                stages.append(answer.provenance["stage_seconds"])

    threads = [threading.Thread(target=call) for _ in range(callers)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_seconds = time.monotonic() - started
    if len(latency) != 2 * callers:
        raise SystemExit(f"{2 * callers - len(latency)} requests failed")
    names = {name for one in stages for name in one}
    medians = {name: statistics.median(one.get(name, 0.0) for one in stages) for name in names}
    return Load(latency, wall_seconds, medians)


def stages_alone(repository: Path, manifest: Manifest, video: Path) -> dict[str, float]:
    """Seconds of each stage for the whole video, nothing else going on; the shortest of a few."""
    clip_plan = manifest.description.clip_plan
    limits = ServingSettings().limits
    stages = OnnxStages(repository, manifest)
    batches: list[NDArray[np.uint8]] = []

    def decode(take: Callable[[NDArray[np.uint8]], object]) -> None:
        with closing(open_video(video, limits.video, pool=pool)) as opened:
            for batch in clip_batches(opened, clip_plan, False):
                take(batch)

    with DecoderPool(limits.decode) as pool:
        decode(batches.append)
        spent = {"decode": min(timed(lambda: decode(len)) for _ in range(REPEATS))}
    assert all(len(batch) == CLIPS_PER_BATCH for batch in batches[:-1])
    values = [stages.features("rgb", batch) for batch in batches]

    def features_of_all() -> None:
        for batch in batches:
            stages.features("rgb", batch)

    spent["rgb"] = min(timed(features_of_all) for _ in range(REPEATS))
    seconds, _ = length_of(video)
    rows = np.ascontiguousarray(np.concatenate(values).T)
    sequence = FeatureSequence.from_equal_parts(rows, seconds)
    pipeline = Pipeline(manifest, stages)
    request = Request(features=sequence)
    pipeline.run(request)
    told = pipeline.run(request).stage_seconds
    return spent | {name: told[name] for name in ("cas", "localize")}


def length_of(video: Path) -> tuple[float, int]:
    """A file's seconds and frames, as it declares them."""
    with closing(open_video(video)) as opened:
        about = opened.description
        assert about.duration_seconds is not None
        assert about.num_frames is not None
        return about.duration_seconds, about.num_frames


def report(figures: dict[str, float], callers: Sequence[int]) -> None:
    """Tables for people."""
    rows = [
        [
            str(number),
            f"{figures[f'video_seconds_a_second_{number}']:.2f}",
            f"{figures[f'latency_seconds_{number}']:.2f}",
            f"{figures[f'latency_p95_seconds_{number}']:.2f}",
            f"{figures[f'served_over_stages_{number}']:.2f}",
        ]
        for number in callers
    ]
    title = f"A video of {figures['video_seconds']:.1f} s through the door and Triton"
    show(title, ("callers", "video s a second", "median s", "95 % s", "served over stages"), rows)
    rows = [
        [
            stage,
            f"{figures[f'{stage}_alone_ms_a_frame']:.3f}",
            f"{figures[f'{stage}_share']:.1%}",
            *(f"{figures[f'{stage}_served_ms_a_frame_{number}']:.3f}" for number in callers),
        ]
        for stage in STAGES
        if figures[f"{stage}_alone_ms_a_frame"]
    ]
    columns = ("stage", "alone ms a frame", "share", *(f"served, {n} callers" for n in callers))
    show("Where the time goes", columns, rows)


if __name__ == "__main__":
    main()
