"""`backtal serve` itself, as an operator starts it: door, Triton and the supervisor above both."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from backtal_serving.processes import stubs_of
from tests.requirements import PROJECT_ROOT

PATIENCE_SECONDS = 90.0


@dataclass(frozen=True)
class Service:
    """A running `backtal serve`: its addresses and what it wrote."""

    grpc: str
    http: str
    process_id: int
    log_file: Path
    errors_file: Path

    def metrics(self) -> list[Sample]:
        """Every series that it tells at the moment."""
        response = httpx.get(f"{self.http}/metrics", trust_env=False, timeout=30.0)
        families = text_string_to_metric_families(response.raise_for_status().text)
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of that metric's series which have these labels."""
        return sum(
            sample.value
            for sample in self.metrics()
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def events(self, name: str) -> list[dict[str, object]]:
        """What the supervisor told of this kind."""
        lines = [json.loads(line) for line in self.errors_file.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    @property
    def triton(self) -> int:
        """The process id of Triton now."""
        return int(str(self.events("ready")[-1]["triton_process_id"]))

    def stub_of(self, model: str) -> int:
        """The process of a model."""
        return next(pid for pid, stub in stubs_of(self.triton).items() if stub.model == model)


@contextmanager
def serving(
    repository: Path,
    folder: Path,
    *options: str,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Start it with these settings of the models, and stop it after."""
    ready, errors, log = (folder / name for name in ("ready.json", "serve.err", "triton.log"))
    (folder / "settings.yaml").write_text(yaml.safe_dump(dict(settings or {})))
    command = [sys.executable, "-m", "backtal.cli", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--http-port", "0", "--ready-file", str(ready)]
    # A Triton with a model that was loaded again takes all of it to stop.
    command += ["--exit-timeout", "3"]
    command += ["--log-file", str(log), "--settings", str(folder / "settings.yaml"), *options]
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stderr=file, env=dict(environment) if environment else None
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready.exists():
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, errors.read_text()
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        yield Service(
            told["grpc_address"], f"http://{told['http_address']}", process.pid, log, errors
        )
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
