"""What metrics and traces cost: one service with both beside one with neither, in pairs by turns.

With: the models count, Triton tells its own, /metrics is asked for once a turn, every request is
traced to a collector. Without: none of it, but for the door's own counters, which cannot be
switched off. The networks are the tests' tiny ones, so that the share is an upper bound: a real
bundle works longer on a request, and is told of in as many words. Videos of ten seconds, and, as
the most that it can be, features that are answered in milliseconds.

The processor time of both services is compared as well: it has what is done after the answer, and
other programs on the machine change it less.

    python benchmarks/observability.py [--quick] [--json FILE]
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from machine import options, show, write

from backtal_training.statistics import over_seeds
from tests.integration.conftest import outputs, tensor
from tests.integration.door.conftest import Fronted, running
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours
from tests.otlp_receiver import otlp_receiver

CALLERS = 2
VIDEO_SECONDS = 10.0
# Sent while the turn lasts that it is of, ten times as often as is usual.
EXPORT_MILLISECONDS = "500"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """Requests of one kind. number: in a turn, of each caller."""

    name: str
    inputs: Sequence[Any]
    number: int


@dataclass(frozen=True)
class Turn:
    """What a turn took: seconds, and seconds of processor of the whole service."""

    seconds: float
    cpu_seconds: float


def main() -> None:
    arguments = options(__doc__.splitlines()[0]).parse_args()
    num_pairs = 3 if arguments.quick else 20
    with tempfile.TemporaryDirectory(prefix="backtal-bench-") as folder:
        figures = measure(Path(folder), num_pairs)
    rows = [[name, f"{value:.4g}"] for name, value in figures.items()]
    show("What metrics and traces cost", ["figure", "value"], rows)
    write(arguments.json, figures)


def measure(folder: Path, num_pairs: int) -> dict[str, float]:
    """All figures, by name."""
    write_tiny_repository(folder / "repository")
    random = np.random.default_rng(3)
    values = random.normal(size=(FEATURE_DIM, 30)).astype(np.float32)
    features = [tensor("features", values), tensor("duration", np.array([19.2], np.float32))]
    video = [tensor("video", moving_colours(VIDEO_SECONDS))]
    figures: dict[str, float] = {"pairs": num_pairs}
    with both(folder) as (told, silent):
        for load in (Load("", video, 6), Load("features_", features, 200)):
            pairs = list(in_turns(load, told, silent, num_pairs))
            figures |= compared(load, pairs)
    return figures


@contextmanager
def both(folder: Path) -> Iterator[tuple[Fronted, Fronted]]:
    """The service with metrics and traces, and the one without."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = EXPORT_MILLISECONDS
    with ExitStack() as stack:
        receiver = stack.enter_context(otlp_receiver())
        services = []
        for name, serving in (
            ("told", {"tracing": {"endpoint": receiver.endpoint}}),
            ("silent", {"metrics": False}),
        ):
            (folder / name).mkdir()
            service = running(folder / "repository", folder / name, serving=serving)
            services.append(stack.enter_context(service))
        yield services[0], services[1]
        assert receiver.spans, "no span was received: nothing was measured"


def in_turns(
    load: Load, told: Fronted, silent: Fronted, num_pairs: int
) -> Iterator[tuple[Turn, Turn]]:
    """Pairs of turns, with and without; who is first changes."""
    for service in (told, silent):
        turn(service, load, is_told=service is told)
    for index in range(num_pairs):
        order = (told, silent) if index % 2 else (silent, told)
        taken = {id(one): turn(one, load, is_told=one is told) for one in order}
        yield taken[id(told)], taken[id(silent)]


def turn(service: Fronted, load: Load, *, is_told: bool) -> Turn:
    """One turn of a service."""
    before, started = cpu_seconds(service), time.perf_counter()
    threads = [
        threading.Thread(target=ask_again, args=(service.grpc, load)) for _ in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    if is_told:
        text = httpx.get(f"{service.http}/metrics", trust_env=False, timeout=60.0).text
        assert "nv_inference_count" in text
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return Turn(seconds, cpu_seconds(service) - before)


def ask_again(address: str, load: Load) -> None:
    """The requests of one caller, one after the other."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(address) as client:
        for _ in range(load.number):
            client.infer(BUNDLE, load.inputs, outputs=outputs("segments", "scores", "labels"))


def compared(load: Load, pairs: Sequence[tuple[Turn, Turn]]) -> dict[str, float]:
    """The share of throughput that is lost, and its 95 % interval; of processor time, added."""
    number = CALLERS * load.number
    lost = share([math.log(told.seconds / silent.seconds) for told, silent in pairs], loss)
    added = share([math.log(told.cpu_seconds / silent.cpu_seconds) for told, silent in pairs], gain)
    silent_seconds = [silent.seconds for _, silent in pairs]
    name = load.name
    return {
        f"{name}requests_per_second": number / float(np.median(silent_seconds)),
        **dict(zip((f"{name}overhead_{end}" for end in ENDS), lost, strict=True)),
        **dict(zip((f"{name}cpu_overhead_{end}" for end in ENDS), added, strict=True)),
    }


ENDS = ("fraction", "low", "high")


def loss(log_ratio: float) -> float:
    """From a ratio of seconds to the share of throughput that is lost."""
    return 1.0 - math.exp(-log_ratio)


def gain(log_ratio: float) -> float:
    """From a ratio to what is added."""
    return math.exp(log_ratio) - 1.0


def share(log_ratios: Sequence[float], meaning: Callable[[float], float]) -> list[float]:
    """The mean over pairs and its t interval."""
    interval = over_seeds(log_ratios)
    return [meaning(value) for value in (interval.mean, interval.low, interval.high)]


def cpu_seconds(service: Fronted) -> float:
    """Of the service's processes so far, of those that have ended and were buried too."""
    return sum(
        cpu_of(process_id)
        for root in (service.door.process_id, service.triton.process_id)
        for process_id in tree_of(root)
    )


def tree_of(root: int) -> Iterator[int]:
    """A process and all that it started."""
    yield root
    for task in Path(f"/proc/{root}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree_of(int(child))


def cpu_of(process_id: int) -> float:
    """Seconds of processor of a process and of its children that were waited for."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND


if __name__ == "__main__":
    main()
