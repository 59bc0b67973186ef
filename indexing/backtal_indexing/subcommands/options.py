"""What `index run` and `index retry` have in common: who answers, who schedules, who is told."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from backtal_indexing.answering import Service
    from backtal_indexing.engines import Engine, Job
    from backtal_indexing.layout import Index
    from backtal_indexing.planning import Plan, Wanted
    from backtal_indexing.progress import JsonLines, ProgressBar

DEFAULT_WORKERS = 4


def configure_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that has videos answered."""
    who = parser.add_argument_group("who answers", "by default a service that is started for it")
    who.add_argument("--server", metavar="HOST:PORT", help="a running service's gRPC address")
    who.add_argument(
        "--http",
        metavar="URL",
        help="its HTTP address: videos that it cannot read by itself are streamed there",
    )
    who.add_argument(
        "--send",
        choices=("auto", "uri", "bytes"),
        default="auto",
        help="how a video goes to the service (default: its URI where the service may read it)",
    )
    who.add_argument(
        "--root-certificates", metavar="FILE", help="reach --server by TLS and trust these"
    )
    who.add_argument(
        "--repository", type=Path, metavar="DIR", help="the model repository, without --server"
    )
    who.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="keep features there, without --server: a bundle with another head on the same "
        "backbone then decodes nothing",
    )
    who.add_argument("--bundle", metavar="NAME", help="by default the only one, else kinetics400")
    how = parser.add_argument_group("how")
    how.add_argument("--engine", choices=("local", "ray"), default="local")
    how.add_argument(
        "--workers",
        type=int,
        default=DEFAULT_WORKERS,
        metavar="N",
        help=f"processes of this machine, with --engine local (default: {DEFAULT_WORKERS})",
    )
    how.add_argument(
        "--address", metavar="ADDRESS", help="of a Ray cluster; by default one of this machine"
    )
    how.add_argument(
        "--timeout", type=float, default=3600.0, metavar="SECONDS", help="a video (default: 3600)"
    )
    how.add_argument(
        "--attempts", type=int, default=3, metavar="N", help="before quarantine (default: 3)"
    )
    how.add_argument("--videos-per-shard", type=int, default=64, metavar="N", help="(default: 64)")
    told = parser.add_argument_group("how it is told")
    told.add_argument(
        "--log", choices=("bar", "json"), default="bar", help="a bar, or lines of JSON"
    )
    told.add_argument("--metrics-port", type=int, metavar="PORT", help="Prometheus while it runs")
    told.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="(default: 127.0.0.1)"
    )
    told.add_argument("--metrics-file", type=Path, metavar="FILE", help="for a node exporter")
    told.add_argument("--push-gateway", metavar="HOST:PORT", help="for a job that ends soon")


def check_running(arguments: argparse.Namespace) -> None:
    """Raise InvalidArgument for values that cannot be, before anything is done."""
    lowest = {"timeout": 0.1, "attempts": 1, "videos_per_shard": 1, "workers": 1}
    for option, least in lowest.items():
        value = getattr(arguments, option)
        if not value >= least:
            raise InvalidArgument(f"{_option(option)} is {value}, allowed is {least} or more")
    if arguments.address is not None and arguments.engine != "ray":
        raise InvalidArgument("--address goes with --engine ray")
    for option in ("http", "root_certificates"):
        if getattr(arguments, option) and not arguments.server:
            raise InvalidArgument(f"{_option(option)} goes with --server")
    for option in ("repository", "features"):
        if getattr(arguments, option) and arguments.server:
            raise InvalidArgument(f"{_option(option)} is for a run without --server")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def run_plan(
    arguments: argparse.Namespace,
    index: Index,
    service: Service,
    fill: Callable[[Plan, Wanted], None],
) -> int:
    """Plan by `fill`, and do it. 0, or 1 where a video is not done."""
    from backtal_indexing.engines import Job
    from backtal_indexing.metrics import MetricsSettings, RunMetrics
    from backtal_indexing.planning import Plan, Wanted
    from backtal_indexing.run import Driver
    from backtal_indexing.shard import Rules

    rules = Rules(timeout_seconds=arguments.timeout, max_attempts=arguments.attempts)
    with service.client() as client:
        sha256 = client.bundle_sha256(service.bundle)
    wanted = Wanted(service.bundle, sha256, arguments.videos_per_shard)
    metrics = MetricsSettings(
        arguments.metrics_port,
        arguments.metrics_host,
        arguments.metrics_file,
        arguments.push_gateway,
    )
    teller = _teller(arguments)
    with ExitStack() as stack:
        plan = stack.enter_context(Plan())
        fill(plan, wanted)
        teller.event("plan", _told_counts(plan))
        watcher = stack.enter_context(RunMetrics(index.name, metrics, plan.counts.num_unchanged))
        job = Job(index.url, service, sha256, rules)
        stack.enter_context(teller)
        driver = Driver(plan, _engine(arguments, job), rules, (teller, watcher))
        try:
            state = driver.run()
        finally:
            teller.summary(driver.state)
    return 1 if state.num_videos["failed"] + state.num_videos["quarantined"] else 0


@contextmanager
def service_of(arguments: argparse.Namespace, roots: Sequence[Path]) -> Iterator[Service]:
    """The service that is named, else one that runs as long as the block.

    `roots` are the folders of the videos, for the latter. Raises InvalidArgument.
    """
    from backtal.commands.detect import DEFAULT_REPOSITORY, REPOSITORY_VARIABLE
    from backtal.detectors import default_bundle, embedded_server
    from backtal_indexing.answering import Service

    if arguments.server:
        service = Service(
            arguments.server,
            arguments.bundle or "",
            arguments.http,
            arguments.send,
            root_certificates=arguments.root_certificates,
        )
        if not service.bundle:
            with service.client() as client:
                service = service.with_bundle(client.default_bundle())
        yield service
        return
    repository = arguments.repository or Path(
        os.environ.get(REPOSITORY_VARIABLE, DEFAULT_REPOSITORY)
    )
    bundle = arguments.bundle or default_bundle(repository)
    with embedded_server(repository, roots, feature_folder=arguments.features) as client:
        yield Service(client.address, bundle, send=arguments.send)


def _engine(arguments: argparse.Namespace, job: Job) -> Engine:
    if arguments.engine == "ray":
        from backtal_indexing.engines.ray import RayEngine

        return RayEngine(job, arguments.address)
    from backtal_indexing.engines.local import LocalEngine

    return LocalEngine(job, arguments.workers)


def _teller(arguments: argparse.Namespace) -> JsonLines | ProgressBar:
    from backtal_indexing.progress import JsonLines, ProgressBar

    return JsonLines() if arguments.log == "json" else ProgressBar()


def _told_counts(plan: Plan) -> dict[str, int]:
    return {name.removeprefix("num_"): count for name, count in vars(plan.counts).items()}
