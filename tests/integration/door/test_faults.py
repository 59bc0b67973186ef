"""What callers see when a part of the service dies or is full, and what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from backtal.client import NO_RETRIES, Client
from backtal.errors import ServiceBusy, Unavailable
from tests.integration.door.conftest import running
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.requirements import PROJECT_ROOT, require

pytestmark = pytest.mark.slow

# The aim is 10 s on an idle machine; starting a process takes longer on a busy one.
BACK_SECONDS = 30.0


def test_a_killed_door_is_back_and_leaves_no_file(tiny_repository: Any, tmp_path: Path) -> None:
    long_video = moving_colours(60.0) + bytes(300_000)
    with (
        running(tiny_repository[0], tmp_path) as service,
        Client(service.grpc, retries=NO_RETRIES, timeout_seconds=60.0) as client,
    ):
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                client.detect(video=long_video, bundle=BUNDLE)
            except Exception as error:
                failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while not service.spooled():
            time.sleep(0.01)
        os.kill(service.door.process_id, signal.SIGKILL)
        killed = time.monotonic()
        asking.join(timeout=30.0)
        assert [type(error) for error in failed] == [Unavailable]
        while not client.is_ready():
            assert time.monotonic() - killed < BACK_SECONDS
            time.sleep(0.05)
        assert client.detect(video=moving_colours(1.0), bundle=BUNDLE).duration_seconds == 1.0
        assert service.spooled() == []


def test_without_triton_the_door_says_when_to_come_back(
    tiny_repository: Any, tmp_path: Path
) -> None:
    with running(tiny_repository[0], tmp_path) as service:
        os.kill(service.triton.process_id, signal.SIGKILL)
        service.triton.wait(10.0)
        response = httpx.post(
            f"{service.http}/v1/detect", content=moving_colours(1.0), trust_env=False, timeout=30.0
        )
        assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
        assert response.json()["retry_after_seconds"] > 0
        # The door still tells its own figures.
        metrics = httpx.get(f"{service.http}/metrics", trust_env=False, timeout=30.0).text
        assert 'backtal_metrics_source_up{source="triton"} 0.0' in metrics
        assert 'code="UNAVAILABLE"' in metrics
        assert "nv_inference_count" not in metrics
        deadline = time.monotonic() + 10.0
        while httpx.get(f"{service.http}/readyz", trust_env=False).status_code != 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(f"{service.http}/healthz", trust_env=False).status_code == 200
        service.triton.stop()
        service.triton.start()
        started = time.monotonic()
        while httpx.get(f"{service.http}/readyz", trust_env=False).status_code != 200:
            assert time.monotonic() - started < 10.0
            time.sleep(0.05)
        response = httpx.post(
            f"{service.http}/v1/detect", content=moving_colours(1.0), trust_env=False, timeout=30.0
        )
        assert response.status_code == 200
        assert service.spooled() == []


def test_a_full_spool_refuses_and_is_not_left_full(tiny_repository: Any, tmp_path: Path) -> None:
    limits = {"spool_bytes": 1_000_000}
    with running(tiny_repository[0], tmp_path, limits=limits) as service:
        address = f"{service.http}/v1/detect"
        for _ in range(3):
            response = httpx.post(address, content=bytes(2_000_000), trust_env=False)
            assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
            assert "no room for the upload" in response.json()["detail"]
        with (
            Client(service.grpc, retries=NO_RETRIES) as client,
            pytest.raises(ServiceBusy, match="no room for the upload"),
        ):
            client.detect(video=bytes(2_000_000), bundle=BUNDLE)
        video = moving_colours(1.0) + bytes(500_000)
        assert httpx.post(address, content=video, trust_env=False).status_code == 200
        assert service.spooled() == []


def test_a_full_disk_refuses_uploads_and_nothing_else(
    tiny_repository: Any, tmp_path: Path, feature_inputs: list[Any]
) -> None:
    """The spool and the jobs on a disk of 4 MB that is filled up while videos are asked for."""
    from tritonclient.grpc import InferenceServerClient

    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        require("unshare", "a disk of its own takes unshare, and root")
    state, ready = tmp_path / "state", tmp_path / "ready.json"
    state.mkdir()
    mount = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
    options = ["--repository", str(tiny_repository[0]), "--grpc-port", "0", "--http-port", "0"]
    options += ["--state", str(state), "--ready-file", str(ready)]
    serve = [sys.executable, "-m", "backtal.cli", "serve", *options]
    process = subprocess.Popen([unshare, "-m", "sh", "-c", mount, str(state), *serve])
    small, large = moving_colours(1.0), moving_colours(1.0) + bytes(6_000_000)
    try:
        _wait_for_ready(process, ready)
        addresses = json.loads(ready.read_text())
        disk = Path(f"/proc/{process.pid}/root{state}")
        base_url = f"http://{addresses['http_address']}"
        with (
            httpx.Client(base_url=base_url, trust_env=False, timeout=60.0) as http,
            InferenceServerClient(addresses["grpc_address"]) as grpc,
        ):
            for route in ("/v1/detect", "/v1/jobs"):
                _check_refused(http.post(route, content=large))
            assert http.post("/v1/detect", content=small).status_code == 200
            with suppress(OSError), (disk / "filling").open("wb", buffering=0) as filling:
                while True:
                    filling.write(bytes(1024))
            for body in ({"content": small}, {"json": {"uri": "file:///nothing.mp4"}}):
                _check_refused(http.post("/v1/jobs", **body))
            _check_refused(http.post("/v1/detect", content=small))
            # What needs no disk goes on.
            assert grpc.infer(BUNDLE, feature_inputs).as_numpy("segments") is not None
            assert http.get("/readyz").status_code == 200
            (disk / "filling").unlink()
            assert http.post("/v1/detect", content=small).status_code == 200
            location = http.post("/v1/jobs", content=small).headers["location"]
            deadline = time.monotonic() + 30.0
            while http.get(location).json()["state"] != "succeeded":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert [path.name for path in (disk / "spool").iterdir()] == [".lock"]
            left = [path.name for path in (disk / "jobs").iterdir() if len(path.name) == 32]
            assert left == []
    finally:
        process.terminate()
        assert process.wait(60.0) == 0


def _check_refused(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE"), response.text
    assert response.json()["retry_after_seconds"] > 0


def _wait_for_ready(process: subprocess.Popen[bytes], ready: Path) -> None:
    deadline = time.monotonic() + 90.0
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_door_and_triton_go_with_a_killed_supervisor(tiny_repository: Any, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    options = ["--repository", str(tiny_repository[0]), "--grpc-port", "0", "--http-port", "0"]
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "backtal.cli", "serve", *options, "--ready-file", str(ready)],
        cwd=PROJECT_ROOT,
    )
    try:
        _wait_for_ready(supervisor, ready)
        children = _children(supervisor.pid)
        assert len(children) == 2
    finally:
        supervisor.kill()
        supervisor.wait()
    address = json.loads(ready.read_text())["http_address"]
    deadline = time.monotonic() + 60.0
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a process outlived its supervisor"
        time.sleep(0.1)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{address}/healthz", trust_env=False)


def _children(process_id: int) -> list[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{process_id}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return sorted(found)
