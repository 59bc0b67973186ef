"""A real Prometheus on loopback, and what it answers to a panel's query."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from backtal_serving.ports import free_port
from deploy.grafana.board import Board, Query
from tests.deploy.tools import PATIENCE_SECONDS, program

SCRAPE_SECONDS = 1
CLUSTER = "test"
# What Grafana would put in, for a board of the last minutes with everything chosen.
GRAFANAS = {"__rate_interval": "60s", "__range": "120s"}
CHOSEN = ".*"
_METRIC = re.compile(r"\b((?:backtal|nv|node|DCGM_FI)_\w+|up)\b(?=[{\[)])")
_LABELS = re.compile(r"{{(\w+)}}")


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    client: httpx.Client

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        document = self.client.get(path, params=parameters).json()
        assert document["status"] == "success", f"{parameters}: {document}"
        return document["data"]

    def problem(self, board: Board, query: Query) -> str | None:
        """Why a query shows nothing, or not what its legend says; None where it does."""
        expression = substituted(board, query.expression)
        # Of its own, because one that is not there can hide behind an `or`.
        for metric in set(_METRIC.findall(expression)) - set(self.metric_names()):
            return f"there is no {metric}: {expression}"
        series = self.ask("/api/v1/query", query=expression)["result"]
        if not series:
            return f"no data: {expression}"
        for one in series:
            if one["value"][1] in ("NaN", "+Inf", "-Inf"):
                return f"{one['metric']} is {one['value'][1]}: {expression}"
            for label in _LABELS.findall(query.legend):
                if label not in one["metric"]:
                    return f"{one['metric']} has no {label}: {expression}"
        return None

    def metric_names(self) -> list[str]:
        """All that it has heard of."""
        names: list[str] = self.ask("/api/v1/label/__name__/values")
        return names

    def rule_problems(self) -> list[str]:
        """The rules that could not be evaluated."""
        groups = self.ask("/api/v1/rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]


def substituted(board: Board, expression: str) -> str:
    """A panel's expression as Grafana would send it."""
    values = {**GRAFANAS, **{variable.name: CHOSEN for variable in board.variables}}
    for name, value in values.items():
        expression = re.sub(rf"\${name}\b", value, expression)
    assert "$" not in expression, f"a variable that {board.uid} does not have: {expression}"
    return expression


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], rules: tuple[Path, ...] = ()
) -> Iterator[Prometheus]:
    """One that scrapes these jobs, each at a HOST:PORT, every second."""
    command = program("prometheus", "prometheus", "make system")
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "2s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": [target], "labels": {"cluster": CLUSTER}}],
            }
            for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = [command, f"--config.file={folder / 'prometheus.yml'}"]
    words += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            _wait_until_ready(client, process, folder / "prometheus.log")
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if client.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
