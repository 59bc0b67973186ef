"""Every panel of every dashboard against a real service, a real index run and a real Prometheus.

The GPU's series alone are written by hand (gpu.prom): there is none here.
"""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from backtal_serving.ports import free_port
from deploy.grafana.board import Board, Panel, Query
from deploy.write import BOARDS, RULES
from tests.deploy.prometheus_server import Prometheus, prometheus, substituted
from tests.deploy.tools import program
from tests.integration.conftest import outputs, tensor
from tests.integration.door.serving import Service, serving
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM
from tests.integration.videos import moving_colours
from tests.requirements import PROJECT_ROOT

pytestmark = pytest.mark.slow

# For a busy machine; on an idle one all panels answer after some ten seconds.
PATIENCE_SECONDS = 240.0
NUM_VIDEOS = 800
GPU_SERIES = (PROJECT_ROOT / "tests" / "deploy" / "gpu.prom").read_bytes()


@dataclass(frozen=True)
class Stage:
    """All that runs, under load."""

    prometheus: Prometheus
    service: Service


@pytest.fixture(scope="module")
def stage(tiny_repository: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service, an index run and the exporters, with load on them, and Prometheus."""
    program("prometheus", "prometheus", "make system")
    folder = tmp_path_factory.mktemp("live")
    library = write_library(folder / "videos")
    with ExitStack() as stack:
        service = stack.enter_context(
            serving(tiny_repository[0], folder, "--allow-root", str(library))
        )
        stack.enter_context(under_load(service))
        targets = {
            "backtal": service.http.removeprefix("http://"),
            "backtal-index": stack.enter_context(index_run(service, library, folder)),
            "node": stack.enter_context(node_exporter()),
            "dcgm": stack.enter_context(file_server(GPU_SERIES)),
        }
        rules = tuple(sorted(RULES.glob("*.yaml")))
        server = stack.enter_context(prometheus(folder, targets, rules))
        yield Stage(server, service)


def write_library(folder: Path) -> Path:
    """Short videos, and some that are none."""
    folder.mkdir()
    video = moving_colours(1.5)
    for number in range(NUM_VIDEOS):
        data = b"no video" if number % 10 == 3 else video
        (folder / f"{number:03}.mp4").write_bytes(data)
    return folder


@contextmanager
def index_run(service: Service, library: Path, folder: Path) -> Iterator[str]:
    """`backtal index run` over the library; the address of its metrics."""
    port = free_port()
    command = [sys.executable, "-m", "backtal.cli", "index", "run", str(library)]
    command += ["--to", str(folder / "films"), "--server", service.grpc, "--workers", "1"]
    command += ["--videos-per-shard", "4", "--attempts", "1", "--log", "json"]
    command += ["--metrics-port", str(port)]
    with (folder / "index.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def node_exporter() -> Iterator[str]:
    """Debian's; its address."""
    command = program("prometheus-node-exporter", "prometheus", "make system")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [command, f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def file_server(text: bytes) -> Iterator[str]:
    """Answers everything with `text`; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def under_load(service: Service) -> Iterator[None]:
    """Requests of every kind, one after the other, until the block ends."""
    ending = threading.Event()
    video = moving_colours(3.0)
    calls: tuple[Callable[[], object], ...] = (
        lambda: ask_by_grpc(service),
        lambda: post(service, "/v1/detect", video),
        lambda: post(service, "/v1/detect", b"no video"),
        lambda: post(service, "/v1/jobs", video),
    )

    def call() -> None:
        while not ending.is_set():
            for one in calls:
                one()
            ending.wait(0.2)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def ask_by_grpc(service: Service) -> None:
    from tritonclient.grpc import InferenceServerClient

    values = np.random.default_rng(3).normal(size=(FEATURE_DIM, 30)).astype(np.float32)
    inputs = [tensor("features", values), tensor("duration", np.array([19.2], np.float32))]
    with InferenceServerClient(service.grpc) as client:
        client.infer(BUNDLE, inputs, outputs=outputs("scores"), client_timeout=60.0)


def post(service: Service, path: str, content: bytes) -> None:
    httpx.post(service.http + path, content=content, trust_env=False, timeout=60.0)


def every_query() -> list[tuple[Board, Panel, Query]]:
    return [
        (board, panel, query)
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
    ]


def test_every_panel_answers_with_data(stage: Stage) -> None:
    left = every_query()
    problems: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and time.monotonic() < deadline:
        found = [(one, stage.prometheus.problem(one[0], one[2])) for one in left]
        left = [one for one, problem in found if problem is not None]
        problems = {
            f"{board.title}: {panel.title}": problem
            for (board, panel, _), problem in found
            if problem is not None
        }
        time.sleep(1.0)
    assert problems == {}


def test_a_misspelt_metric_is_found(stage: Stage) -> None:
    for board in BOARDS:
        query = board.panels[0].queries[0]
        metric = query.expression.partition("{")[0].rpartition("(")[2]
        wrong = query.expression.replace(metric, f"{metric}x")
        assert wrong != query.expression
        problem = stage.prometheus.problem(board, replace(query, expression=wrong))
        assert problem == f"there is no {metric}x: {substituted(board, wrong)}"


def test_a_misspelt_metric_behind_an_or_is_found(stage: Stage) -> None:
    query = Query("sum(backtal_requests_totl{}) or 0 * sum(backtal_requests_total{})")
    problem = stage.prometheus.problem(BOARDS[0], query)
    assert problem is not None
    assert "there is no backtal_requests_totl" in problem


def test_a_label_that_is_not_there_is_found(stage: Stage) -> None:
    board = BOARDS[0]
    query = Query(f'sum by (cod) (backtal_requests_total{{bundle="{BUNDLE}"}})', "{{cod}}")
    problem = stage.prometheus.problem(board, query)
    assert problem is not None
    assert "has no cod" in problem


def test_the_choices_at_the_top_have_values(stage: Stage) -> None:
    for board in BOARDS:
        for variable in board.variables:
            path = f"/api/v1/label/{variable.name}/values"
            values = stage.prometheus.ask(path, **{"match[]": variable.metric})
            assert values, f"{board.title}: {variable.name}"


def test_the_rules_are_evaluated_and_no_page_is_sent(stage: Stage) -> None:
    """Real series have the labels that the rules ask for, and nothing is wrong here."""
    rules = stage.prometheus
    deadline = time.monotonic() + PATIENCE_SECONDS
    recorded = "backtal:requests_slow:share5m", "backtal:requests_failed:share5m"
    while not all(rules.ask("/api/v1/query", query=name)["result"] for name in recorded):
        assert time.monotonic() < deadline, "the recording rules record nothing"
        time.sleep(1.0)
    assert rules.rule_problems() == []
    firing = [alert["labels"] for alert in rules.ask("/api/v1/alerts")["alerts"]]
    assert [labels for labels in firing if labels["severity"] == "page"] == []
