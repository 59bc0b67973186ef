"""Memory and time by length of video: python benchmarks/long_video.py [--quick] [--json FILE]

One short recording, its packets repeated to 1, 10, 60 and 240 minutes, goes through the pipeline
as it is served: decoded in a locked-down child, features of 1024 dimensions made up from mean
colours so that the run ends, CAS and windows as the video is decoded. Each length runs in a
process of its own; the memory is the most that the whole process tree had at once, shared pages
counted once (PSS).
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from backtal.features import FloatArray
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
    Manifest,
    Network,
)
from backtal.pipeline import Pipeline, Request
from backtal.stages import CasOutput
from backtal.video.sandbox import DecoderPool

MINUTES = (1, 10, 60, 240)
QUICK_MINUTES = (1, 10)
FEATURE_DIM = 1024
CLASSES = ("red", "green", "blue")
RECORDING_SECONDS = 60
RATE = 25
SAMPLE_SECONDS = 0.1


class MeanColours:
    """Networks of a few lines: their memory and time are nothing beside the pipeline's."""

    def features(self, stream: str, clips: NDArray[np.uint8]) -> FloatArray:
        assert stream == "rgb"
        means = clips.mean(axis=(1, 2, 3), dtype=np.float32) / 128 - 1
        return np.tile(means, (1, FEATURE_DIM // 3 + 1))[:, :FEATURE_DIM]

    def cas(self, features: FloatArray) -> CasOutput:
        return CasOutput(np.ascontiguousarray(features[:, :3]))


def manifest() -> Manifest:
    plan = ClipPlan(short_side_pixels=32, crop_pixels=32)
    sha256 = "0" * 64
    return Manifest(
        description=BundleDescription(
            name="long",
            classes=CLASSES,
            clip_plan=plan,
            backbones=(
                Backbone(name="means", stream="rgb", sha256=sha256, feature_dim=FEATURE_DIM),
            ),
            grid=Grid(position_seconds=plan.stride_seconds, window_positions=750),
            cas=CasKind(kind="logits", background=False, magnitude=False, halo_positions=4),
            localization=LocalizationSettings(),
        ),
        backbones={"rgb": Network(model="means", sha256=sha256)},
        cas=Network(model="cas", sha256=sha256),
    )


def recording() -> bytes:
    """A minute of moving colours, small pictures."""
    random = np.random.default_rng(1)
    colours = random.integers(0, 256, (RECORDING_SECONDS + 1, 3), dtype=np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "25", "bf": "0"}
        for number in range(RECORDING_SECONDS * RATE):
            image = np.empty((48, 64, 3), np.uint8)
            image[:] = colours[number // RATE]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def repeat(data: bytes, minutes: int, path: Path) -> None:
    """The same packets, one recording after another."""
    with av.open(io.BytesIO(data)) as source, av.open(str(path), "w", format="mp4") as target:
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        stream = target.add_stream_from_template(source.streams.video[0])
        length = round(RECORDING_SECONDS / float(packets[0].time_base))
        for turn in range(minutes):
            for packet in packets:
                moved = av.Packet(bytes(packet))
                moved.time_base, moved.stream = packet.time_base, stream
                moved.pts, moved.dts = packet.pts + turn * length, packet.dts + turn * length
                moved.duration, moved.is_keyframe = packet.duration, packet.is_keyframe
                target.mux(moved)


def tree_bytes(process_id: int) -> int:
    """Proportional memory of a process and all below it."""
    total = 0
    try:
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total + sum(tree_bytes(int(child)) for child in children)


def run(path: str, queue: multiprocessing.Queue[dict[str, float]]) -> None:
    """One video in this process: how long it took, what was most of its memory."""
    import os

    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, tree_bytes(os.getpid()))

    with DecoderPool() as pool:
        pipeline = Pipeline(manifest(), MeanColours(), pool=pool)
        sampler = threading.Thread(target=sample)
        sampler.start()
        started = time.monotonic()
        answer = pipeline.run(Request(path=Path(path)), keep=())
        seconds = time.monotonic() - started
        done.set()
        sampler.join()
    queue.put(
        {
            "video_seconds": answer.duration_seconds,
            "seconds": seconds,
            "peak_bytes": peak,
            "num_segments": len(answer.segments),
        }
    )


def measure(minutes: int, data: bytes, folder: Path) -> dict[str, float]:
    path = folder / f"{minutes}.mp4"
    repeat(data, minutes, path)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run, args=(str(path), queue))
    process.start()
    found: dict[str, float] = queue.get()
    process.join()
    path.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 10 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    all_minutes = QUICK_MINUTES if arguments.quick else MINUTES
    data = recording()
    figures: dict[str, float] = {}
    print(f"{'minutes':>8} {'seconds':>8} {'x real time':>12} {'peak MB':>8} {'segments':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in all_minutes:
            one = measure(minutes, data, Path(folder))
            figures |= {f"{name}_{minutes}": value for name, value in one.items()}
            speed = one["video_seconds"] / one["seconds"]
            print(
                f"{minutes:8d} {one['seconds']:8.1f} {speed:12.0f} "
                f"{one['peak_bytes'] / 1e6:8.0f} {one['num_segments']:9.0f}"
            )
    first, last = all_minutes[0], all_minutes[-1]
    for name, key in (("memory", "peak_bytes"), ("seconds", "seconds")):
        figures[f"{name}_{last}_over_{first}"] = (
            figures[f"{key}_{last}"] / figures[f"{key}_{first}"]
        )
        print(f"{name}_{last}_over_{first}: {figures[f'{name}_{last}_over_{first}']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
