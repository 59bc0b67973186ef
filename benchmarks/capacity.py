"""Capacity on paper: what a node carries, from what each stage was measured to cost.

Nothing is timed here. Each figure that goes in says where it is from; what comes out is their
arithmetic, and is what docs/scaling.md shows (a test holds that).

    python benchmarks/capacity.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["measured", "spec sheet", "assumed", "by definition"]

MILLION_HOURS_SECONDS = 1e6 * 3600.0
HOUR_SECONDS = 3600.0


@dataclass(frozen=True)
class Figure:
    """A number that goes in, and why it is believed."""

    value: float
    unit: str
    what: str
    source: Source
    where: str


MEASURED_CORES = Figure(2, "cores", "of the measurements", "measured", "benchmarks.md")
FRAMES = Figure(25, "frames/s", "of the clip plan", "by definition", "the clip plan's default")
CLIP_FRAMES = Figure(16, "frames", "a clip, and its stride", "by definition", "the same")
DECODE_360 = Figure(
    1225,
    "frames/s",
    "decoding and scaling 640x360, 2 cores",
    "measured",
    "PyAV's filter graph, by hand",
)
DECODE_1080 = Figure(540, "frames/s", "the same, 1920x1080", "measured", "the same run")
I3D_CLIP = Figure(0.069, "s", "I3D RGB, a clip, 2 cores, bfloat16", "measured", "benchmarks.md")
I3D_CLIP_FLOAT = Figure(
    0.182, "s", "the same, float32", "measured", "benchmarks.md: processors without bfloat16"
)
I3D_GFLOP = Figure(55.6, "GFLOP", "I3D RGB, a clip", "measured", "benchmarks.md")
CAS_750 = Figure(0.041, "s", "CAS network, 750 positions, 2 cores", "measured", "benchmarks.md")
FLOW_FIELD = Figure(0.010, "s", "DIS flow, a field, 2 cores", "measured", "backbones.md")
SERVED = Figure(
    0.9, "", "served of what the stages alone would give", "assumed", "0.99 and more on 2 cores"
)
CPU_CORES = Figure(16, "cores", "of a CPU node", "assumed", "a common size, with AMX")
SCALING = Figure(
    1.0, "", "speed from 2 to all cores, of linear", "assumed", "not measured beyond 2"
)
GPU_CORES = Figure(24, "cores", "beside each GPU", "assumed", "192 cores, 8 GPUs")
TENSOR_RATE = Figure(989, "TFLOP/s", "H200, bfloat16, dense", "spec sheet", "NVIDIA")
GPU_SHARE = Figure(0.3, "", "of that rate for I3D's convolutions", "assumed", "not run on a GPU")
NVDEC_ENGINES = Figure(7, "engines", "NVDEC of an H200", "spec sheet", "NVIDIA")
NVDEC_RATE = Figure(700, "frames/s", "1080p H.264, an engine", "assumed", "not run")
BYTES_360 = Figure(0.125, "MB/s", "a 640x360 file's bit rate (1 Mbit/s)", "assumed", "")
BYTES_1080 = Figure(0.625, "MB/s", "a 1080p file's bit rate (5 Mbit/s)", "assumed", "")
RANGE_MB = Figure(0.262144, "MB", "a range request", "by definition", "uris: 256 KiB")
STORE_RATE = Figure(5500, "GET/s", "S3, of a prefix", "spec sheet", "Amazon")
FEATURE_BYTES = Figure(4096, "bytes", "I3D RGB, a clip: 1024 floats", "by definition", "")
VIDEO_SECONDS = Figure(360, "s", "a video of the library", "assumed", "")
DOOR_RATE = Figure(2500, "requests/s", "one front door", "measured", "a prototype, by hand")

INPUTS = tuple(value for value in list(globals().values()) if isinstance(value, Figure))


@dataclass(frozen=True)
class Node:
    """What one kind of node does with one kind of video.

    stage_seconds: of the node, for a second of video, each stage alone. overlapped: whether the
    stages run on different hardware, so that the slowest one limits.
    """

    name: str
    stage_seconds: dict[str, float]
    overlapped: bool
    megabytes_a_second: float

    @property
    def limit(self) -> str:
        """The stage that limits, or has the largest share."""
        return max(self.stage_seconds, key=lambda stage: self.stage_seconds[stage])

    @property
    def real_time_factor(self) -> float:
        """Seconds of video in a second."""
        costs = self.stage_seconds.values()
        return SERVED.value / (max(costs) if self.overlapped else sum(costs))

    @property
    def hours_for_a_million(self) -> float:
        """Node-hours for a million hours of video."""
        return MILLION_HOURS_SECONDS / self.real_time_factor / HOUR_SECONDS

    @property
    def network_megabytes(self) -> float:
        """MB a second that the node reads."""
        return self.real_time_factor * self.megabytes_a_second


def clips_a_second() -> float:
    """Clips in a second of video."""
    return FRAMES.value / CLIP_FRAMES.value


def decode_seconds(rate: Figure, cores: float) -> float:
    """Of `cores`, for a second of video."""
    return FRAMES.value / rate.value * MEASURED_CORES.value / (cores * SCALING.value)


def cpu_node(
    name: str, decode: Figure, clip: Figure, megabytes: Figure, flow: bool = False
) -> Node:
    """The stages share the cores."""
    share = MEASURED_CORES.value / (CPU_CORES.value * SCALING.value)
    position_seconds = CLIP_FRAMES.value / FRAMES.value
    stages = {
        "decode": decode_seconds(decode, CPU_CORES.value),
        "rgb": clip.value * clips_a_second() * share,
        "cas": CAS_750.value / (750 * position_seconds) * share,
    }
    if flow:
        stages["flow"] = (FLOW_FIELD.value * FRAMES.value + clip.value * clips_a_second()) * share
    return Node(name, stages, overlapped=False, megabytes_a_second=megabytes.value)


def gpu_node(name: str, decode_cost: float, megabytes: Figure) -> Node:
    """Networks on the GPU, decoding beside it."""
    rate = TENSOR_RATE.value * GPU_SHARE.value * 1e3
    stages = {"decode": decode_cost, "rgb": I3D_GFLOP.value * clips_a_second() / rate}
    return Node(name, stages, overlapped=True, megabytes_a_second=megabytes.value)


def nodes() -> tuple[Node, ...]:
    """The rows of the table."""
    nvdec = FRAMES.value / (NVDEC_ENGINES.value * NVDEC_RATE.value)
    return (
        cpu_node("CPU, 640x360", DECODE_360, I3D_CLIP, BYTES_360),
        cpu_node("CPU, 1080p", DECODE_1080, I3D_CLIP, BYTES_1080),
        cpu_node("CPU, 640x360, float32", DECODE_360, I3D_CLIP_FLOAT, BYTES_360),
        cpu_node("CPU, 640x360, DIS flow too", DECODE_360, I3D_CLIP, BYTES_360, flow=True),
        gpu_node("H200, 640x360", decode_seconds(DECODE_360, GPU_CORES.value), BYTES_360),
        gpu_node("H200, 1080p", decode_seconds(DECODE_1080, GPU_CORES.value), BYTES_1080),
        gpu_node("H200, 1080p, if NVDEC decoded", nvdec, BYTES_1080),
    )


def inputs_table() -> str:
    """What goes in, as Markdown."""
    lines = ["| | | | from |", "| --- | --- | --- | --- |"]
    for figure in INPUTS:
        where = f"{figure.source}{f': {figure.where}' if figure.where else ''}"
        lines.append(f"| {figure.what} | {figure.value:g} | {figure.unit} | {where} |")
    return "\n".join(lines)


def nodes_table() -> str:
    """What a node carries, as Markdown."""
    lines = [
        "| a node | x real time | limits | node-hours for a million hours | MB/s read |",
        "| --- | --- | --- | --- | --- |",
    ]
    for node in nodes():
        part = node.stage_seconds[node.limit]
        share = part / (part if node.overlapped else sum(node.stage_seconds.values()))
        other = {stage: cost for stage, cost in node.stage_seconds.items() if stage != node.limit}
        idle = (
            f" (rgb {other['rgb'] / part:.0%} busy)" if "rgb" in other and node.overlapped else ""
        )
        limits = f"{node.limit}{idle}" if node.overlapped else f"{node.limit}, {share:.0%}"
        lines.append(
            f"| {node.name} | {node.real_time_factor:,.0f} | {limits} "
            f"| {node.hours_for_a_million:,.0f} | {node.network_megabytes:,.0f} |"
        )
    return "\n".join(lines)


def totals() -> dict[str, float]:
    """Figures of a million hours of video, whatever the nodes."""
    num_videos = MILLION_HOURS_SECONDS / VIDEO_SECONDS.value
    num_gets = MILLION_HOURS_SECONDS * BYTES_360.value / RANGE_MB.value
    store_rate = STORE_RATE.value * RANGE_MB.value
    clips = MILLION_HOURS_SECONDS * clips_a_second()
    cas = CAS_750.value / (750 * CLIP_FRAMES.value / FRAMES.value)
    return {
        "petabytes_360": MILLION_HOURS_SECONDS * BYTES_360.value / 1e9,
        "petabytes_1080": MILLION_HOURS_SECONDS * BYTES_1080.value / 1e9,
        "billions_of_range_requests_360": num_gets / 1e9,
        "store_megabytes_a_second_a_prefix": store_rate,
        "store_x_real_time_a_prefix_360": store_rate / BYTES_360.value,
        "store_x_real_time_a_prefix_1080": store_rate / BYTES_1080.value,
        "terabytes_of_features": clips * FEATURE_BYTES.value / 1e12,
        "core_hours_of_a_second_head": MILLION_HOURS_SECONDS * cas * MEASURED_CORES.value / 3600,
        "millions_of_videos": num_videos / 1e6,
        "requests_a_second_within_a_week": num_videos / (7 * 86400),
        "cores_to_fill_an_h200_360": FRAMES.value
        / DECODE_360.value
        * MEASURED_CORES.value
        / gpu_node("", 0.0, BYTES_360).stage_seconds["rgb"],
        "cores_to_fill_an_h200_1080": FRAMES.value
        / DECODE_1080.value
        * MEASURED_CORES.value
        / gpu_node("", 0.0, BYTES_1080).stage_seconds["rgb"],
        "clip_gigabytes_a_second_to_a_full_h200": clips_a_second()
        * 16
        * 224
        * 224
        * 3
        / 1e9
        / gpu_node("", 0.0, BYTES_360).stage_seconds["rgb"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the same: nothing is timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    chosen = parser.parse_args(arguments)
    print(inputs_table(), nodes_table(), sep="\n\n")
    print()
    for name, value in totals().items():
        print(f"{name}: {value:,.3g}")
    if chosen.json is not None:
        factors = {f"x_real_time: {node.name}": node.real_time_factor for node in nodes()}
        chosen.json.write_text(json.dumps({**factors, **totals()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
