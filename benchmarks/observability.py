"""What metrics and traces cost: one service with both beside one with neither, by turns.

With: the models count, Triton tells its own, /metrics is asked for once a pair, every request is
traced to a collector. Without: none of it, but for the door's own counters, which cannot be
switched off. The networks are the tests' tiny ones, so that the share is an upper bound: a real
bundle works longer on a request, and is told of in as many words. Videos of five seconds, and, as
the most that it can be, features that are answered in milliseconds.

A pair is many short turns, with, without, without, with, so that what else the machine does meets
both alike. The processor time of the two services is compared as well: it has what is done after
the answer, and other programs change it less.

With `--repository` a real bundle is asked as well, the same video: what a service loses in truth.

    python benchmarks/observability.py [--quick] [--json FILE] [--repository DIR] [--bundle NAME]
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
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
VIDEO_SECONDS = 5.0
WANTED = ("segments", "scores", "labels")
# Sent while the pair lasts that it is of, ten times as often as is usual.
EXPORT_MILLISECONDS = "500"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
ENDS = ("fraction", "low", "high")


@dataclass(frozen=True)
class Load:
    """Requests of one kind. number: in a turn, of each caller. rounds: of turns, in a pair."""

    name: str
    inputs: Sequence[Any]
    number: int
    bundle: str = BUNDLE
    rounds: int = 4


@dataclass
class Taken:
    """What a service took in a pair: seconds, and seconds of processor of all its processes."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Asked:
    """A service and the connections of its callers."""

    def __init__(self, service: Fronted, stack: ExitStack) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.service = service
        self._clients = [
            stack.enter_context(InferenceServerClient(service.grpc)) for _ in range(CALLERS)
        ]
        self._threads = stack.enter_context(ThreadPoolExecutor(CALLERS))

    def turn(self, load: Load) -> float:
        """All callers, each with its requests one after the other; seconds."""

        def ask(client: Any) -> None:
            for _ in range(load.number):
                client.infer(load.bundle, load.inputs, outputs=outputs(*WANTED))

        started = time.perf_counter()
        list(self._threads.map(ask, self._clients))
        return time.perf_counter() - started

    def scrape(self) -> float:
        """Ask for /metrics; seconds."""
        started = time.perf_counter()
        text = httpx.get(f"{self.service.http}/metrics", trust_env=False, timeout=60.0).text
        assert "nv_inference_count" in text
        return time.perf_counter() - started


def main() -> None:
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--bundle", default="kinetics400")
    arguments = parser.parse_args()
    num_pairs = 3 if arguments.quick else 12
    with tempfile.TemporaryDirectory(prefix="backtal-bench-") as folder:
        figures = measure(Path(folder), num_pairs)
        if arguments.repository is not None:
            figures |= measure_real(
                Path(folder), arguments.repository.absolute(), arguments.bundle, num_pairs
            )
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
    with both(folder / "repository", folder / "tiny") as services:
        for load in (Load("", video, 1), Load("features_", features, 8)):
            figures |= of_load(load, *services, num_pairs)
    return figures


def measure_real(folder: Path, repository: Path, bundle: str, num_pairs: int) -> dict[str, float]:
    """The figures of a bundle whose networks are no toys, by name."""
    video = [tensor("video", moving_colours(VIDEO_SECONDS))]
    with both(repository, folder / "real") as services:
        return of_load(Load("real_", video, 1, bundle, rounds=1), *services, num_pairs)


def of_load(load: Load, told: Asked, silent: Asked, num_pairs: int) -> dict[str, float]:
    """The figures of one kind of request."""
    for service in (told, silent):
        service.turn(load)
    return compared(load, [pair(load, told, silent) for _ in range(num_pairs)])


@contextmanager
def both(repository: Path, folder: Path) -> Iterator[tuple[Asked, Asked]]:
    """The service with metrics and traces, and the one without."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = EXPORT_MILLISECONDS
    with ExitStack() as stack:
        receiver = stack.enter_context(otlp_receiver())
        services = []
        for name, serving in (
            ("told", {"tracing": {"endpoint": receiver.endpoint}}),
            ("silent", {"metrics": False}),
        ):
            (folder / name).mkdir(parents=True)
            service = running(repository, folder / name, serving=serving)
            services.append(Asked(stack.enter_context(service), stack))
        yield services[0], services[1]
        assert receiver.spans, "no span was received: nothing was measured"


def pair(load: Load, told: Asked, silent: Asked) -> tuple[Taken, Taken]:
    """What both took for the same number of requests."""
    taken = {id(told): Taken(), id(silent): Taken()}
    before = {id(one): cpu_seconds(one.service) for one in (told, silent)}
    for _ in range(load.rounds):
        for service in (told, silent, silent, told):
            taken[id(service)].seconds += service.turn(load)
    taken[id(told)].seconds += told.scrape()
    for one in (told, silent):
        taken[id(one)].cpu_seconds = cpu_seconds(one.service) - before[id(one)]
    return taken[id(told)], taken[id(silent)]


def compared(load: Load, pairs: Sequence[tuple[Taken, Taken]]) -> dict[str, float]:
    """The share of throughput that is lost, and its 95 % interval; of processor time, added."""
    number = 2 * load.rounds * CALLERS * load.number
    lost = share([math.log(told.seconds / silent.seconds) for told, silent in pairs], loss)
    added = share([math.log(told.cpu_seconds / silent.cpu_seconds) for told, silent in pairs], gain)
    seconds = statistics.median(silent.seconds for _, silent in pairs)
    cpu = statistics.median(silent.cpu_seconds for _, silent in pairs)
    name = load.name
    return {
        f"{name}requests_per_second": number / seconds,
        f"{name}cpu_ms_per_request": 1000 * cpu / number,
        **dict(zip((f"{name}overhead_{end}" for end in ENDS), lost, strict=True)),
        **dict(zip((f"{name}cpu_overhead_{end}" for end in ENDS), added, strict=True)),
    }


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
    # A decoder may end while it is looked at.
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree_of(int(child))


def cpu_of(process_id: int) -> float:
    """Seconds of processor of a process and of its children that were waited for."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(ticks) for ticks in text.rpartition(")")[2].split()[11:15]) / TICKS_PER_SECOND


if __name__ == "__main__":
    main()
