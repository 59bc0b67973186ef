"""What the front door adds to a request straight to Triton, in one run.

Latency at one caller and requests a second at 16, as small feature requests; a 60 MB video by gRPC
and by HTTP and a 200 MB one streamed, with the growth of each process's memory. The videos are a
short one with zeros behind it: what is measured is their way in.

    python benchmarks/front_door.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from backtal_serving.door.service import behind_door, door_of, private_folder
from backtal_serving.door.settings import DoorSettings
from backtal_serving.server_options import ServerOptions
from tests.integration.conftest import outputs, tensor
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours

MEGABYTE = 1_000_000
CALLERS = 16
PIECE_BYTES = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backtal-bench-") as folder:
        figures = measure(Path(folder), 300 if arguments.quick else 1500)
    show(figures)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, num_requests: int) -> dict[str, float]:
    """All figures, by name."""
    write_tiny_repository(folder / "repository")
    with private_folder() as private:
        settings = DoorSettings(
            grpc_port=0, http_port=0, triton_address="", folder=folder / "state"
        )
        options = ServerOptions(repository=folder / "repository", log_file=folder / "triton.log")
        triton = behind_door(options, private, settings.spool_folder)
        with triton, door_of(triton, settings, folder / "door.log") as door:
            figures = small_requests(door.grpc_address, triton.grpc_address, num_requests)
            figures |= uploads(door, triton)
    return figures


def small_requests(door: str, triton: str, num_requests: int) -> dict[str, float]:
    """Latency and rate of feature requests, the two ways in by turns."""
    latency: dict[str, list[float]] = {door: [], triton: []}
    rate: dict[str, list[float]] = {door: [], triton: []}
    # By turns, so that what else the machine does meets both.
    for _ in range(5):
        for address in (door, triton):
            latency[address] += latencies(address, num_requests // 5)
            rate[address].append(requests_per_second(address, num_requests // 5))
    milliseconds = {address: 1000 * statistics.median(latency[address]) for address in latency}
    per_second = {address: statistics.median(rate[address]) for address in rate}
    return {
        "latency_direct_ms": milliseconds[triton],
        "latency_door_ms": milliseconds[door],
        "latency_added_ms": milliseconds[door] - milliseconds[triton],
        "requests_per_second_direct": per_second[triton],
        "requests_per_second_door": per_second[door],
        "requests_over_direct": per_second[door] / per_second[triton],
    }


def latencies(address: str, number: int) -> list[float]:
    """Seconds of each of `number` requests, one after the other."""
    ask = asker(address)
    for _ in range(10):
        ask()
    seconds = []
    for _ in range(number):
        started = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - started)
    return seconds


def requests_per_second(address: str, number: int) -> float:
    """Of CALLERS callers together."""
    each = max(number // CALLERS, 10)
    askers = [asker(address) for _ in range(CALLERS)]

    def work(ask: Callable[[], None]) -> None:
        for _ in range(each):
            ask()

    threads = [threading.Thread(target=work, args=(ask,)) for ask in askers]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CALLERS * each / (time.perf_counter() - started)


def asker(address: str) -> Callable[[], None]:
    """A connection of its own, and the request."""
    from tritonclient.grpc import InferenceServerClient

    client = InferenceServerClient(address)
    values = np.random.default_rng(3).normal(size=(FEATURE_DIM, 30)).astype(np.float32)
    inputs = [tensor("features", values), tensor("duration", np.array([19.2], np.float32))]
    wanted = outputs("segments", "scores", "labels")

    def ask() -> None:
        client.infer(BUNDLE, inputs, outputs=wanted)

    return ask


def uploads(door: Any, triton: Any) -> dict[str, float]:
    """Seconds and memory of large videos; of the 200 MB one first, into an idle door."""
    from tritonclient.grpc import InferenceServerClient

    video = moving_colours(1.0)
    figures: dict[str, float] = {}

    def by_http(num_bytes: int) -> None:
        def pieces() -> Iterator[bytes]:
            yield video
            left = num_bytes - len(video)
            while left > 0:
                yield bytes(min(left, PIECE_BYTES))
                left -= PIECE_BYTES

        headers = {"content-type": "video/mp4"}
        address = f"http://{door.http_address}/v1/detect"
        response = httpx.post(
            address, content=pieces(), headers=headers, timeout=120.0, trust_env=False
        )
        response.raise_for_status()

    def by_grpc(num_bytes: int) -> None:
        padded = video + bytes(num_bytes - len(video))
        with InferenceServerClient(door.grpc_address) as client:
            client.infer(BUNDLE, [tensor("video", padded)], outputs=outputs("segments"))

    for name, send, megabytes in (
        ("http_200mb", by_http, 200),
        ("http_60mb", by_http, 60),
        ("grpc_60mb", by_grpc, 60),
    ):
        watched = {"door": door.process_id, "triton": triton.process_id}
        idle = {key: reset_peak(process_id) for key, process_id in watched.items()}
        started = time.perf_counter()
        send(megabytes * MEGABYTE)
        figures[f"{name}_seconds"] = time.perf_counter() - started
        for key, process_id in watched.items():
            grown = memory_bytes(process_id, "VmHWM") - idle[key]
            figures[f"{name}_{key}_grows_mb"] = grown / MEGABYTE
    figures["upload_memory_mb"] = figures["http_200mb_door_grows_mb"]
    return figures


def reset_peak(process_id: int) -> int:
    """Forget a process's peak of memory; what it has now."""
    Path(f"/proc/{process_id}/clear_refs").write_text("5")
    return memory_bytes(process_id, "VmRSS")


def memory_bytes(process_id: int, field: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of a process."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"/proc/{process_id}/status has no {field}")


def show(figures: dict[str, float]) -> None:
    """A table for people."""
    table = Table(title="The front door beside Triton alone", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)


if __name__ == "__main__":
    main()
