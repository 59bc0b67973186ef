"""A real Triton with the tiny repository, and a real front door, as `backtal serve` starts them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.manifest import Manifest
from tests.integration.conftest import tensor
from tests.integration.tiny_repository import FEATURE_DIM


@dataclass
class Fronted:
    """A running service; `door` and `triton` are the processes' handles."""

    door: Any
    triton: Any
    folder: Path
    root: Path
    log_file: Path

    @property
    def grpc(self) -> str:
        address: str = self.door.grpc_address
        return address

    @property
    def http(self) -> str:
        return f"http://{self.door.http_address}"

    def spooled(self) -> list[Path]:
        """The files that lie in the spool."""
        return [path for path in (self.folder / "spool").iterdir() if path.name != ".lock"]


@contextmanager
def running(
    repository: Path, folder: Path, *, serving: dict[str, Any] | None = None, **door: Any
) -> Iterator[Fronted]:
    """A service with these settings of its models and of its door."""
    from backtal_serving.door.service import behind_door, door_of, private_folder
    from backtal_serving.door.settings import DoorSettings
    from backtal_serving.server_options import ServerOptions
    from backtal_serving.settings import ServingSettings

    root = folder / "videos"
    root.mkdir(exist_ok=True)
    settings = DoorSettings.model_validate(
        {
            "grpc_port": 0,
            "http_port": 0,
            "triton_address": "",
            "folder": folder / "state",
            **door,
        }
    )
    models = ServingSettings.model_validate({"allowed_roots": [root], **(serving or {})})
    options = ServerOptions(repository=repository, settings=models, log_file=folder / "triton.log")
    with ExitStack() as stack:
        socket_folder = stack.enter_context(private_folder())
        server = behind_door(options, socket_folder, settings.spool_folder)
        stack.enter_context(server)
        log_file = folder / "door.log"
        process = stack.enter_context(door_of(server, settings, log_file))
        yield Fronted(process, server, settings.folder, root, log_file)


@pytest.fixture(scope="session")
def fronted(
    tiny_repository: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    """One service for the tests that leave it as they found it."""
    with running(tiny_repository[0], tmp_path_factory.mktemp("fronted")) as service:
        yield service
        assert service.spooled() == []
        assert "failed by a bug" not in service.log_file.read_text()


@pytest.fixture
def feature_inputs() -> list[Any]:
    """Inputs of tritonclient.grpc that are answered in milliseconds."""
    values = np.random.default_rng(3).normal(size=(FEATURE_DIM, 30)).astype(np.float32)
    return [tensor("features", values), tensor("duration", np.array([19.2], np.float32))]


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` of 0, 1, ... gives or raises, each in a thread of its own."""
    results: list[Any] = [None] * number

    def run(index: int) -> None:
        try:
            results[index] = work(index)
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
