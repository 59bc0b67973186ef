"""A real Triton with the tiny repository, and the public client for it."""

from __future__ import annotations

import fcntl
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.errors import MissingDependency
from backtal.manifest import Manifest
from backtal.video.sandbox import DecoderPool, DecodeSettings
from tests.integration.videos import moving_colours
from tests.requirements import require

PATIENCE_SECONDS = 60.0
ALL_OUTPUTS = (
    "segments",
    "scores",
    "labels",
    "duration",
    "cas",
    "position_seconds",
    "features",
    "clip_start_seconds",
    "clip_end_seconds",
    "provenance",
)


@dataclass(frozen=True)
class Served:
    """A running server: its address, the folder that a uri may name, its repository and log."""

    address: str
    root: Path
    repository: Path
    manifest: Manifest
    log_file: Path
    process_id: int


@pytest.fixture(scope="session")
def triton() -> None:
    """Skip, or fail where it is required, without what a real server needs."""
    for module in ("pytriton", "tritonclient", "onnxruntime", "onnx"):
        if importlib.util.find_spec(module) is None:
            require("triton", f"{module} is not installed: pip install 'backtal[dev]'")
    from backtal_serving.launcher import find_installation

    try:
        find_installation()
    except MissingDependency as error:
        require("triton", error.message)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """Locked-down decoders.

    Of one thread: with several FFmpeg fills the holes of a damaged picture differently each time.
    """
    opened = DecoderPool(DecodeSettings(threads=1))
    try:
        opened.start()
    except MissingDependency as error:
        require("seccomp", error.message)
    with opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_repository(triton: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of the tiny repository and its bundle's manifest."""
    from tests.integration.tiny_repository import write_tiny_repository

    folder = tmp_path_factory.mktemp("repository")
    return folder, write_tiny_repository(folder)


@pytest.fixture(scope="session")
def served(
    tiny_repository: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server for the tests that leave it as they found it."""
    from backtal_serving.embedded import EmbeddedServer

    repository, manifest = tiny_repository
    root = tmp_path_factory.mktemp("root")
    log_file = tmp_path_factory.mktemp("log") / "triton.log"
    with EmbeddedServer(repository, [root], log_file=log_file) as server:
        assert server.process_id is not None
        yield Served(server.grpc_address, root, repository, manifest, log_file, server.process_id)
    assert server.exit_code == 0


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    """The public tritonclient, unmodified."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(served.address) as connected:
        yield connected


@pytest.fixture(scope="session")
def video() -> bytes:
    """Twelve seconds of moving colours."""
    return moving_colours(12.0)


def tensor(name: str, value: Any) -> Any:
    """An input of tritonclient: bytes and text as BYTES [1], all else as it is."""
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    if isinstance(value, (bytes, str)):
        raw = value if isinstance(value, bytes) else value.encode()
        value = np.array([raw], np.object_)
    array = np.asarray(value)
    infer_input = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    infer_input.set_data_from_numpy(array)
    return infer_input


def outputs(*names: str) -> list[Any]:
    """Requested outputs of tritonclient."""
    from tritonclient.grpc import InferRequestedOutput

    return [InferRequestedOutput(name) for name in names]


def wait_until_in_flight(process_id: int) -> None:
    """Wait until a bundle of the Triton `process_id` works on a request."""
    (view,) = [
        Path(word.removeprefix("--model-repository="))
        for word in Path(f"/proc/{process_id}/cmdline").read_text().split("\0")
        if word.startswith("--model-repository=")
    ]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _is_held(view.parent / "requests.lock"):
        assert time.monotonic() < deadline, "no request came to be worked on"
        time.sleep(0.01)


def _is_held(lock: Path) -> bool:
    """Whether a model has the lock that it holds while it works."""
    if not lock.exists():
        return False
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
