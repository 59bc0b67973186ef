"""The GPU overlay's pod, its two containers as two processes here: Triton, and the door beside it.

On the CPU, with the wheel's Triton in place of NVIDIA's: commands, settings, sockets and the probe
are the overlay's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backtal_serving.door.callers import sha256_of_key
from backtal_serving.launcher import find_installation, lay_out
from backtal_serving.ports import free_port
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.requirements import PROJECT_ROOT

pytestmark = pytest.mark.slow

OVERLAY = PROJECT_ROOT / "deploy" / "kubernetes" / "overlays" / "gpu"
PATIENCE_SECONDS = 120.0


def containers() -> tuple[dict[str, Any], dict[str, Any]]:
    """The door's and Triton's."""
    document = yaml.safe_load((OVERLAY / "deployment.yaml").read_text())
    door, triton = document["spec"]["template"]["spec"]["containers"]
    return door, triton


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which ends with the block; 0 is what it has to give."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=dict(environment), start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        code = process.wait(PATIENCE_SECONDS)
    assert code == 0, log.read_text()[-2000:]


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_a_video_is_answered(tiny_repository: Any, tmp_path: Path) -> None:
    door, triton = containers()
    here = {
        "/repository": tiny_repository[0],
        "/run/backtal": tmp_path / "run",
        "/state": tmp_path / "state",
        "/etc/backtal/door": tmp_path,
        "/etc/backtal/keys": tmp_path,
        # Nobody listens there, which costs no request anything.
        "otel-collector:4318": f"127.0.0.1:{free_port()}",
    }

    def local(text: str) -> str:
        for inside, outside in here.items():
            text = text.replace(inside, str(outside))
        return text

    (tmp_path / "run").mkdir(mode=0o700)
    keys = {"keys": [{"name": "prometheus", "sha256": sha256_of_key("k"), "role": "operator"}]}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    settings = json.loads(local((OVERLAY / "door.json").read_text()))
    settings |= {"host": "127.0.0.1", "grpc_port": 0, "http_port": free_port()}
    (tmp_path / "door.json").write_text(json.dumps(settings))
    (tmp_path / "triton").mkdir()
    installation = find_installation()
    layout = lay_out(installation, tmp_path / "triton")
    triton_command = [str(installation.tritonserver), *map(local, triton["command"][1:])]
    triton_command.append(f"--backend-directory={layout.backends}")
    told = {variable["name"]: local(variable["value"]) for variable in triton["env"]}
    triton_environment = {**layout.environment, **told}
    triton_log, door_log = tmp_path / "triton.log", tmp_path / "door.log"
    with (
        running(triton_command, triton_log, triton_environment) as server,
        running([sys.executable, *map(local, door["command"][1:])], door_log, os.environ) as front,
    ):
        probe = [sys.executable, *map(local, triton["livenessProbe"]["exec"]["command"][1:])]
        wait_until(lambda: succeeds(probe), server, triton_log)
        address = f"http://127.0.0.1:{settings['http_port']}"
        with httpx.Client(base_url=address, trust_env=False, timeout=60.0) as client:
            client.headers["authorization"] = "Bearer k"
            wait_until(lambda: is_ready(client), front, door_log)
            answer = client.post("/v1/detect", content=moving_colours(3.0)).raise_for_status()
            assert answer.json()["segments"]
            exposition = client.get("/metrics").raise_for_status().text
    assert f'backtal_requests_total{{bundle="{BUNDLE}",code="OK",entry="http"}} 1.0' in exposition
    assert "nv_inference_count" in exposition
