"""The image `embedded`, really built without a Docker engine, and a video answered by it.

Debian's buildah builds it on a base that debootstrap makes: it takes minutes, root and the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from backtal_serving.server import free_port
from tests.deploy.tools import assert_succeeds, program, run
from tests.integration.videos import moving_colours
from tests.requirements import PROJECT_ROOT, require

# Each of the two long steps has its own: a build on two busy cores.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

RELEASE = "bookworm"
BUILD_SECONDS = 1500.0
PATIENCE_SECONDS = 180.0
IMAGE = "localhost/backtal"
# How this machine's pip and TLS find the packages, if it has such files.
SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs")


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, with a store of its own."""
    command = program("buildah", "buildah", "apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        require("buildah", "debootstrap wants root")
    folder = tmp_path_factory.mktemp("buildah")
    stores = [f"--root={folder / 'store'}", f"--runroot={folder / 'run'}"]
    return [command, *stores, "--storage-driver=vfs"]


@pytest.fixture(scope="module")
def base(buildah: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of Debian alone, from this machine's mirror."""
    debootstrap = program("debootstrap", "buildah", "apt-get install buildah debootstrap")
    folder = tmp_path_factory.mktemp("debian") / "root"
    words = [debootstrap, "--variant=minbase", "--include=ca-certificates", RELEASE, folder]
    assert_succeeds([*words, *mirror()], timeout=BUILD_SECONDS)
    container = assert_succeeds([*buildah, "from", "scratch"]).strip()
    assert_succeeds([*buildah, "add", "--quiet", container, folder, "/"], timeout=BUILD_SECONDS)
    words = ["commit", "--quiet", "--rm", container, "localhost/base"]
    assert_succeeds([*buildah, *words], timeout=BUILD_SECONDS)
    return "localhost/base"


def mirror() -> list[str]:
    """Where apt gets Debian from here; debootstrap's own choice where that cannot be told."""
    words = ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)"]
    with suppress(FileNotFoundError):
        for line in run(words).stdout.splitlines():
            site, codename, component = [*line.split(), "", "", ""][:3]
            if (codename, component) == (RELEASE, "main"):
                return [site]
    return []


@pytest.fixture(scope="module")
def container(buildah: list[str], base: str) -> str:
    """A container of the image, which is built for it."""
    words = ["bud", "--isolation=chroot", f"--build-arg=BASE={base}", "--target=embedded"]
    words += [f"--volume={path}:{path}:ro" for path in SETTINGS if Path(path).exists()]
    words += [f"--tag={IMAGE}", str(PROJECT_ROOT)]
    assert_succeeds([*buildah, *words], timeout=BUILD_SECONDS)
    return assert_succeeds([*buildah, "from", IMAGE]).strip()


@pytest.fixture
def inside(buildah: list[str], container: str, tiny_repository: Any) -> list[str]:
    """The beginning of a command that runs in the container, with the tiny repository."""
    volume = f"--volume={tiny_repository[0]}:/repository:ro"
    return [*buildah, "run", "--isolation=chroot", volume, container, "--"]


def test_what_is_in_it(inside: list[str]) -> None:
    assert assert_succeeds([*inside, "id", "-u"]).strip() == "10001"
    tools = ["gcc", "cc", "make", "pip-compile", "cyclonedx-py"]
    found = run([*inside, "sh", "-c", f"command -v {' '.join(tools)}"])
    assert found.stdout == ""
    listing = json.loads(assert_succeeds([*inside, "cat", "/usr/share/doc/backtal/sbom.cdx.json"]))
    assert listing["bomFormat"] == "CycloneDX"
    packages = {component["name"] for component in listing["components"]}
    assert {"backtal", "av", "numpy", "nvidia-pytriton", "onnxruntime"} <= packages
    assert "torch" not in packages
    assert "GPL" in assert_succeeds([*inside, "cat", "/usr/share/doc/backtal/NOTICE"])


@pytest.fixture
def service(inside: list[str], tmp_path: Path) -> Iterator[str]:
    """`backtal serve` in the container; the address of its HTTP."""
    grpc_port, http_port = free_port(), free_port()
    command = [*inside, "backtal", "serve", "--repository=/repository"]
    command += [f"--grpc-port={grpc_port}", f"--http-port={http_port}", "--state=/state"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    address = f"http://127.0.0.1:{http_port}"
    try:
        wait_until_ready(address, process, log)
        yield address
    finally:
        end_children(process)
    # Of `buildah run`, which gives the command's own.
    assert process.returncode == 0, log.read_text()[-2000:]


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/readyz", trust_env=False).is_success:
                return
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


def end_children(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the service itself: buildah does not hand signals on."""
    for served in served_by(process.pid):
        with suppress(ProcessLookupError):
            os.kill(served, 15)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def served_by(process_id: int) -> list[int]:
    """The processes below that are `backtal serve`."""
    found = []
    for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"serve" in words and any(word.endswith(b"bin/backtal") for word in words):
            found.append(int(child))
        else:
            found += served_by(int(child))
    return found


def test_a_video_is_answered(service: str) -> None:
    response = httpx.post(
        f"{service}/v1/detect", content=moving_colours(3.0), trust_env=False, timeout=60.0
    )
    assert response.raise_for_status().json()["segments"]
