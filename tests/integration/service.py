"""A `backtal serve` of its own: door, Triton and supervisor, as a process beside the test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtal.client import Client
from backtal_serving.processes import stubs_of
from tests.integration.tiny_repository import BUNDLE

PATIENCE_SECONDS = 120.0


@dataclass
class Service:
    """A running `backtal serve` of `repository`."""

    process: subprocess.Popen[bytes]
    log: Path
    repository: Path
    grpc: str
    http: str

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its events of one name, so far."""
        lines = self.log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record["event"] == name]

    def ready_versions(self) -> list[int]:
        """The versions of the bundle that callers may name."""
        with Client(self.grpc) as client:
            return [found.number for found in client.versions(BUNDLE) if found.is_ready]

    def inner_models(self) -> set[str]:
        """The networks that its Triton has loaded, by their processes."""
        triton = int(self.events("ready")[-1]["triton_process_id"])
        return {stub.model for stub in stubs_of(triton).values()} - {BUNDLE, f"{BUNDLE}_stream"}


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def serving(repository: Path, folder: Path, *options: str, at_once: int = 1) -> Iterator[Service]:
    """A service of the repository, until the block ends; then it stops cleanly."""
    ready, log, settings = folder / "ready.json", folder / "serve.log", folder / "settings.yaml"
    settings.write_text(f"limits: {{requests: {{at_once: {at_once}}}}}\n")
    command = [sys.executable, "-m", "backtal.cli", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--http-port", "0", "--settings", str(settings)]
    command += ["--ready-file", str(ready), "--log-file", str(folder / "triton.log"), *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_for(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        told = json.loads(ready.read_text())
        yield Service(
            process, log, repository, told["grpc_address"], f"http://{told['http_address']}"
        )
        process.terminate()
        assert process.wait(60.0) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
