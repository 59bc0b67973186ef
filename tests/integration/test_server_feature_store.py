"""A real Triton with a feature store: a known video is decoded once, for all bundles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.conftest import outputs, tensor
from tests.integration.tiny_repository import BUNDLE, write_tiny_repository
from tests.object_store import object_store

SECOND = "second"
NAMES = ("segments", "scores", "labels", "duration", "cas", "provenance")


@pytest.fixture(scope="module")
def two_bundles(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles with one backbone."""
    folder = tmp_path_factory.mktemp("two-bundles")
    first = write_tiny_repository(folder)
    second = write_tiny_repository(folder, name=SECOND, cas_seed=8)
    assert first.backbones == second.backbones
    assert first.cas != second.cas
    return folder


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def clients(
    two_bundles: Path, store_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """Of a server without a store and of one with it."""
    from tritonclient.grpc import InferenceServerClient

    from backtal_serving.server import TritonServer
    from backtal_serving.server_options import ServerOptions
    from backtal_serving.settings import ServingSettings

    settings = {"feature_store": {"folder": store_folder, "max_bytes": 10_000_000}}
    log = tmp_path_factory.mktemp("log")
    with ExitStack() as stack:
        connected = []
        for name, raw in (("without", {}), ("with", settings)):
            options = ServerOptions(
                repository=two_bundles,
                settings=ServingSettings.model_validate(raw),
                log_file=log / f"{name}.log",
            )
            server = stack.enter_context(TritonServer(options))
            connected.append(stack.enter_context(InferenceServerClient(server.grpc_address)))
        yield connected[0], connected[1]


def ask(client: Any, bundle: str, video: bytes, **parameters: Any) -> tuple[dict[str, Any], Any]:
    """The tensors of an answer, and its provenance."""
    result = client.infer(
        bundle, [tensor("video", video)], outputs=outputs(*NAMES), parameters=parameters
    )
    tensors = {name: result.as_numpy(name) for name in NAMES}
    return tensors, json.loads(tensors.pop("provenance")[0])


def test_a_second_bundle_decodes_nothing_and_answers_the_same(
    clients: tuple[Any, Any], video: bytes, store_folder: Path
) -> None:
    without, with_store = clients
    _, told = ask(with_store, BUNDLE, video)
    assert told["feature_source"] == "video"
    assert told["stage_seconds"]["decode"] > 0
    for bundle in (SECOND, BUNDLE):
        expected, _ = ask(without, bundle, video)
        answer, told = ask(with_store, bundle, video)
        assert told["feature_source"] == "store"
        assert not {"decode", "rgb"} & set(told["stage_seconds"])
        for name, values in expected.items():
            np.testing.assert_array_equal(answer[name], values)
    (entry,) = store_folder.glob("*.features")
    assert entry.stat().st_mode & 0o077 == 0

    # Damaged, it is made again; nobody sees an error.
    entry.write_bytes(entry.read_bytes()[:-1])
    _, told = ask(with_store, SECOND, video)
    assert told["feature_source"] == "video"
    _, told = ask(with_store, SECOND, video)
    assert told["feature_source"] == "store"


def test_what_is_refused_is_refused_with_a_store_too(
    clients: tuple[Any, Any], video: bytes
) -> None:
    from tritonclient.utils import InferenceServerException

    for bytes_sent, parameters in (
        (video, {"nms": 2.0}),
        (b"no video", {}),
        (video[: len(video) // 2], {}),
    ):
        messages = []
        for client in clients:
            with pytest.raises(InferenceServerException) as caught:
                ask(client, BUNDLE, bytes_sent, **parameters)
            messages.append(caught.value.message())
        assert messages[0] == messages[1]


def test_two_servers_share_a_bucket(
    two_bundles: Path,
    video: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tritonclient.grpc import InferenceServerClient

    from backtal_serving.server import ServerOptions, TritonServer
    from backtal_serving.settings import ServingSettings

    with ExitStack() as stack:
        bucket = stack.enter_context(object_store(tmp_path_factory.mktemp("s3")))
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        raw = {"prefix": "s3://features/known/", "s3_endpoint": bucket.endpoint}
        settings = ServingSettings.model_validate(
            {"feature_store": {**raw, "s3_region": "us-east-1", "timeout_seconds": 30.0}}
        )
        log = tmp_path_factory.mktemp("log")
        clients = []
        for name in ("here", "there"):
            options = ServerOptions(
                repository=two_bundles, settings=settings, log_file=log / f"{name}.log"
            )
            server = stack.enter_context(TritonServer(options))
            clients.append(stack.enter_context(InferenceServerClient(server.grpc_address)))
        expected, told = ask(clients[0], BUNDLE, video)
        assert told["feature_source"] == "video"
        answer, told = ask(clients[1], BUNDLE, video)
        assert told["feature_source"] == "store"
        for name, values in expected.items():
            np.testing.assert_array_equal(answer[name], values)
