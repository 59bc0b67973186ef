"""The image `embedded`, built from the Dockerfile on a Debian made for it, and run by runc."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tests.deploy.containers import (
    Builder,
    Container,
    Image,
    bound,
    debian,
    in_memory,
    pip_mounts,
    running,
)
from tests.deploy.test_images import pins
from tests.integration.videos import moving_colours
from tests.requirements import PROJECT_ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

READY_SECONDS = 120.0
STOP_SECONDS = 60.0
DOCUMENTS = "/usr/share/doc/backtal"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    builder = Builder(folder)
    try:
        base = f"--build-arg=BASE={debian(builder, folder)}"
        options = ["--target=embedded", base, *pip_mounts(folder)]
        yield builder.open(builder.build(PROJECT_ROOT, *options))
    finally:
        builder.close()
        shutil.rmtree(folder)


@pytest.fixture
def scratch() -> Iterator[dict[str, Path]]:
    """What is written to /tmp and /dev/shm, to be looked at after the end."""
    found = {}
    for name, beside in (("/tmp", None), ("/dev/shm", "/dev/shm")):
        found[name] = Path(tempfile.mkdtemp(prefix="backtal-image-", dir=beside))
        found[name].chmod(0o1777)
    try:
        yield found
    finally:
        for folder in found.values():
            shutil.rmtree(folder)


@pytest.fixture
def container(
    image: Image, tiny_repository: Any, scratch: dict[str, Path], tmp_path: Path
) -> Iterator[Container]:
    """The service of the tiny repository, with a video beside it."""
    repository = tiny_repository[0]
    for folder in (repository, tmp_path):
        # pytest makes them for their owner alone.
        folder.chmod(0o755)
    (tmp_path / "my.mp4").write_bytes(moving_colours(3.0))
    mounts = [
        *(bound(folder, name) for name, folder in scratch.items()),
        bound(repository, "/repository", "ro"),
        bound(tmp_path, "/videos", "ro"),
    ]
    with running(image, tmp_path, mounts) as started:
        deadline = time.monotonic() + READY_SECONDS
        while started.execute(*image.health_check).returncode != 0:
            assert started.process.poll() is None, started.log.read_text()
            assert time.monotonic() < deadline, started.log.read_text()
            time.sleep(0.5)
        yield started


def test_it_answers_a_video_and_stops(
    container: Container, scratch: dict[str, Path], record_property: Any
) -> None:
    detect = ("backtal", "detect", "/videos/my.mp4", "--server", "127.0.0.1:8001", "--json", "-")
    answered = container.execute(*detect)
    assert answered.returncode == 0, answered.stderr
    (segments,) = json.loads(answered.stdout)["results"].values()
    assert segments
    post = (
        "import urllib.request as r; print(r.urlopen("
        "'http://127.0.0.1:8000/v1/detect', open('/videos/my.mp4', 'rb').read()).read().decode())"
    )
    posted = container.execute("python3", "-c", post)
    assert posted.returncode == 0, posted.stderr
    assert len(json.loads(posted.stdout)["segments"]) == len(segments)

    status = container.execute("cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapBnd"], 16) == 0
    assert container.execute("touch", "/home/backtal/x").returncode != 0

    started = time.monotonic()
    assert container.stop(STOP_SECONDS) == 0, container.log.read_text()
    record_property("stop_seconds", round(time.monotonic() - started, 1))
    for folder in scratch.values():
        assert list(folder.iterdir()) == []


def test_what_is_in_it(image: Image, tmp_path: Path, record_property: Any) -> None:
    root = image.root
    assert image.user == "10001"
    programs = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/backtal/bin")
        for path in (root / folder).iterdir()
    }
    assert not programs & {"gcc", "cc", "c++", "clang", "tcc", "ld", "as", "make"}
    packages = {path.name for path in root.glob("opt/backtal/lib/python3*/site-packages/*")}
    assert {"backtal", "backtal_serving", "pytriton", "av"} <= packages
    assert not packages & {"torch", "decord", "pyarrow", "pytest"}

    documents = root / DOCUMENTS.lstrip("/")
    bill = (documents / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    parts = json.loads(bill)["components"]
    listed = {canonicalize_name(part["name"]): part["version"] for part in parts}
    assert listed.items() >= pins("embedded.txt").items()
    assert "backtal" in listed
    notice = (documents / "NOTICE").read_text()
    assert "FFmpeg, built with --enable-gpl" in notice
    sizes = [p.lstat().st_size for p in root.rglob("*") if p.is_file() and not p.is_symlink()]
    record_property("image_mebibytes", sum(sizes) >> 20)


def test_its_packages_fit_together(image: Image, tmp_path: Path) -> None:
    check = Image(**{**vars(image), "command": ["/opt/backtal/bin/python", "-m", "pip", "check"]})
    with running(check, tmp_path, [in_memory("/tmp", "mode=1777")]) as started:
        assert started.process.wait(READY_SECONDS) == 0, started.log.read_text()
