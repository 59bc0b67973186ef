"""A neighbour scans the running service: it finds the front door alone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backtal_serving.door.callers import sha256_of_key
from tests.requirements import PROJECT_ROOT, require

pytestmark = pytest.mark.slow

ADDRESS, NEIGHBOUR = "10.213.77.1", "10.213.77.2"
GRPC_PORT, HTTP_PORT = 18001, 18000
STARTUP_SECONDS = 90.0

SCAN = """
import json, socket, sys

found = []
for port in range(1, 65536):
    with socket.socket() as probe:
        probe.settimeout(5.0)
        if probe.connect_ex((sys.argv[1], port)) == 0:
            found.append(port)
print(json.dumps(found))
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them, for the service and its neighbour."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        require("netns", "network namespaces take root and the command ip")
    tag = secrets.token_hex(3)
    names = f"bt{tag}a", f"bt{tag}b"
    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name",
               names[1], "netns", names[1])  # fmt: skip
        except subprocess.CalledProcessError as error:
            require("netns", f"the kernel refuses network namespaces: {error.stderr!r}")
        for name, address in zip(names, (ADDRESS, NEIGHBOUR), strict=True):
            ip("-n", name, "address", "add", f"{address}/30", "dev", name)
            for device in (name, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names


@pytest.fixture
def wait_for_record(tmp_path: Path) -> Any:
    def wait(process: subprocess.Popen[bytes]) -> dict[str, Any]:
        path, deadline = tmp_path / "ready.json", time.monotonic() + STARTUP_SECONDS
        while not path.exists():
            assert process.poll() is None, "the service ended at start"
            assert time.monotonic() < deadline, "the service was not ready in time"
            time.sleep(0.1)
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    return wait


def test_a_scan_finds_the_front_door_alone(
    tiny_repository: Any, tmp_path: Path, wait_for_record: Any
) -> None:
    keys = {"keys": [{"name": "ann", "sha256": sha256_of_key("a-key")}]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    command = [
        sys.executable,
        "-m",
        "backtal.cli",
        "serve",
        "--repository",
        str(tiny_repository[0]),
    ]
    options = ["--host", ADDRESS, "--grpc-port", str(GRPC_PORT), "--http-port", str(HTTP_PORT)]
    options += ["--keys", str(tmp_path / "keys.json"), "--log-file", str(tmp_path / "log")]
    options += ["--ready-file", str(tmp_path / "ready.json")]
    with namespaces() as (inside, outside):
        service = subprocess.Popen(
            ["ip", "netns", "exec", inside, *command, *options], cwd=PROJECT_ROOT
        )
        try:
            wait_for_record(service)
            scanned = subprocess.run(
                ["ip", "netns", "exec", outside, sys.executable, "-c", SCAN, ADDRESS],
                check=True,
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert json.loads(scanned.stdout) == [HTTP_PORT, GRPC_PORT]
        finally:
            service.terminate()
            assert service.wait(60.0) == 0
