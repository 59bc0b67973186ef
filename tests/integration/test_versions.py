"""New versions under load: no request fails, and each answer names the bundle that made it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from backtal import cli
from backtal.client import NO_RETRIES, Client
from backtal.errors import NotFound, VersionRefused
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.manifest import Manifest, Network
from backtal.pipeline import Pipeline, Request
from backtal.repository import bundle_versions, load_bundle
from backtal.runtime import OnnxStages
from backtal_export.model_folders import copy_networks
from backtal_export.public_models import remove_version, write_public_models
from backtal_export.publishing import confirm
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 120.0


@dataclass
class Service:
    """A running `backtal serve` of `repository` that keeps two versions of each bundle."""

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
        from backtal_serving.processes import stubs_of

        triton = int(self.events("ready")[-1]["triton_process_id"])
        return {stub.model for stub in stubs_of(triton).values()} - {BUNDLE, f"{BUNDLE}_stream"}


@dataclass
class Load:
    """Callers that ask without a pause and try nothing twice: the hashes that they were told."""

    address: str
    hashes: list[list[str]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def call(self, told: list[str], ask: Callable[[Client], Any]) -> None:
        with Client(self.address, timeout_seconds=60.0, retries=NO_RETRIES) as client:
            while not self.stopped.is_set():
                try:
                    told.append(ask(client).provenance["bundle_sha256"])
                except Exception as error:
                    self.errors.append(error)
                    time.sleep(0.05)

    def orders(self) -> list[list[str]]:
        """For each caller the hashes in the order of its answers, repetitions left out."""
        return [[sha256 for sha256, _ in groupby(told)] for told in self.hashes]


@pytest.fixture(scope="module")
def features() -> FeatureSequence:
    values = np.random.default_rng(3).normal(size=(FEATURE_DIM, 60)).astype(np.float32)
    return FeatureSequence.from_equal_parts(values, 38.4)


@pytest.fixture(scope="module")
def service(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("versions")
    repository, ready, log = folder / "repository", folder / "ready.json", folder / "serve.log"
    write_tiny_repository(repository)
    settings = folder / "settings.yaml"
    settings.write_text("limits: {requests: {at_once: 1}}\n")
    command = [sys.executable, "-m", "backtal.cli", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--http-port", "0", "--versions", "2"]
    command += ["--settings", str(settings), "--ready-file", str(ready)]
    command += ["--log-file", str(folder / "triton.log")]
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


@pytest.fixture(scope="module")
def golden(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two feature files and, as their truth, the first version's best segment of each class."""
    folder = tmp_path_factory.mktemp("golden")
    manifest = load_bundle(service.repository, BUNDLE)
    pipeline = Pipeline(manifest, OnnxStages(service.repository, manifest))
    made_by = FeatureProvenance(backbone_sha256=(manifest.description.backbones[0].sha256,))
    database = {}
    for seed in (1, 2):
        values = np.random.default_rng(seed).normal(size=(FEATURE_DIM, 60)).astype(np.float32)
        sequence = FeatureSequence.from_equal_parts(values, 38.4, provenance=made_by)
        sequence.save(folder / f"video_{seed}.npz")
        # By falling score, so that the last that is kept of a label is its best.
        best = {
            part.label: part for part in pipeline.run(Request(features=sequence)).segments[::-1]
        }
        actions = [
            {"segment": [part.start_seconds, part.end_seconds], "label": part.label}
            for part in best.values()
        ]
        database[f"video_{seed}"] = {"subset": "test", "duration": 38.4, "annotations": actions}
    (folder / "ground_truth.json").write_text(json.dumps({"database": database}))
    return folder


@pytest.fixture
def load(service: Service, features: FeatureSequence) -> Iterator[Load]:
    video = moving_colours(2.0)
    asks: list[Callable[[Client], Any]] = [
        lambda client: client.detect(features=features, bundle=BUNDLE),
        lambda client: client.detect(video=video, bundle=BUNDLE),
        lambda client: client.detect(video=video, bundle=BUNDLE, on_progress=lambda *_: None),
    ]
    running = Load(service.grpc, hashes=[[] for _ in asks])
    callers = [
        threading.Thread(target=running.call, args=pair)
        for pair in zip(running.hashes, asks, strict=True)
    ]
    for caller in callers:
        caller.start()
    yield running
    running.stopped.set()
    for caller in callers:
        caller.join()


def test_a_publish_broken_ones_and_a_roll_back_under_load(
    service: Service, load: Load, golden: Path, features: FeatureSequence, tmp_path: Path
) -> None:
    """One long story, as a start of the service takes most of its time."""
    repository = service.repository
    first = load_bundle(repository, BUNDLE)
    wait_for_answers(load, first)

    second = write_tiny_repository(tmp_path / "second", cas_name="second")
    words = ["publish", str(tmp_path / "second" / BUNDLE), "--to", str(repository)]
    words += ["--golden", str(golden), "--server", service.grpc]
    since = time.monotonic()
    assert cli.main(words) == 0
    print(f"published, and answered by, after {time.monotonic() - since:.1f} s")
    wait_for_answers(load, second)
    # The caller names a version, or takes the newest.
    with Client(service.grpc, retries=NO_RETRIES) as client:
        for version, made_by in ((1, first), (2, second), (None, second)):
            answer = client.detect(features=features, bundle=BUNDLE, version=version)
            assert answer.provenance["bundle_sha256"] == made_by.sha256
    (listed,) = get(service, "/v1/models")["models"]
    assert listed["versions"] == ["1", "2"]
    assert listed["hashes"] == {"1": first.sha256, "2": second.sha256}
    for version, made_by in (("1", first), ("2", second)):
        assert detect_by_http(service, version)["bundle_sha256"] == made_by.sha256

    # One that answers worse never gets there.
    before = sorted(repository.rglob("*"))
    worse = write_tiny_repository(tmp_path / "worse", cas_seed=8)
    words[1] = str(tmp_path / "worse" / BUNDLE)
    assert cli.main(words) == cli.EXIT_MENDABLE
    assert sorted(repository.rglob("*")) == before
    # One that was damaged on its way is refused by its hash.
    damaged = copy_by_hand(write_tiny_repository(tmp_path / "third", cas_name="third"), service)
    wait_for(lambda: service.events("version_refused"))
    (refused,) = service.events("version_refused")
    assert refused["version"] == 3
    assert refused["problem"].startswith(f"{damaged}/1/model.onnx has the SHA-256")
    with Client(service.grpc) as client:
        wait_for(lambda: client.versions(BUNDLE)[-1].problem)
        remove_version(repository, BUNDLE, 3)
        wait_for(lambda: not client.versions(BUNDLE)[-1].problem)
    # One that Triton cannot load is told to its publisher, and taken back.
    write_version_of(repository, first, b"no network")
    with pytest.raises(VersionRefused, match=r"version 3 .* cannot be loaded.*goes on with"):
        confirm(repository, BUNDLE, 3, service.grpc)
    assert bundle_versions(repository, BUNDLE) == [1, 2]
    assert service.ready_versions() == [1, 2]

    assert cli.main(["rollback", str(repository / BUNDLE), "--server", service.grpc]) == 0
    wait_for_answers(load, first)
    assert service.ready_versions() == [2, bundle_versions(repository, BUNDLE)[-1]]
    with Client(service.grpc) as client, pytest.raises(NotFound, match="no version '1'"):
        client.detect(features=features, bundle=BUNDLE, version=1)
    assert get(service, "/v2/health/ready", parse=False).status_code == 200

    assert load.errors == []
    assert load.orders() == [[first.sha256, second.sha256, first.sha256]] * len(load.hashes)
    print(f"{sum(len(told) for told in load.hashes)} answers, no error")
    assert worse.sha256 not in {sha256 for told in load.hashes for sha256 in told}


@pytest.mark.long
def test_networks_that_no_version_names_any_more_are_unloaded(
    service: Service, tmp_path: Path
) -> None:
    third = write_tiny_repository(tmp_path, cas_name="fourth")
    for number in range(2):
        source = third.model_copy(update={"source": str(number)})
        newest = publish_without_gate(tmp_path, source, service.repository)
        wait_for(lambda newest=newest: newest in service.ready_versions())
    wait_for(
        lambda: service.inner_models() == {network.model for network in third.networks},
    )


@pytest.mark.long
def test_a_triton_that_is_killed_while_it_takes_a_version(
    service: Service, tmp_path: Path, features: FeatureSequence
) -> None:
    before = service.ready_versions()
    num_taken = len(service.events("taking_versions"))
    manifest = write_tiny_repository(tmp_path, cas_name="fifth")
    newest = publish_without_gate(tmp_path, manifest, service.repository)
    wait_for(lambda: len(service.events("taking_versions")) > num_taken)
    os.kill(service.events("ready")[-1]["triton_process_id"], signal.SIGKILL)
    wait_for(lambda: len(service.events("ready")) == 2)
    wait_for(lambda: service.ready_versions() == [before[-1], newest])
    with Client(service.grpc) as client:
        for version, made_by in ((before[-1], None), (newest, manifest.sha256)):
            answer = client.detect(features=features, bundle=BUNDLE, version=version)
            assert made_by in (None, answer.provenance["bundle_sha256"])
    # It was nobody's fault but ours.
    assert not [event for event in service.events("version_refused") if event["version"] == newest]


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_answers(load: Load, manifest: Manifest) -> None:
    """Wait until every caller has been answered by this bundle."""

    def all_told() -> bool:
        return all(told and told[-1] == manifest.sha256 for told in load.hashes)

    with suppress(AssertionError):
        wait_for(all_told)
    assert all_told(), (load.errors[-3:], load.orders())


def get(service: Service, path: str, *, parse: bool = True) -> Any:
    response = httpx.get(service.http + path, trust_env=False)
    return response.raise_for_status().json() if parse else response


def detect_by_http(service: Service, version: str) -> dict[str, Any]:
    """The provenance of `/v1/detect`'s answer; KServe's own path answers by the same version."""
    video = moving_colours(1.0)
    asked = {"bundle": BUNDLE, "version": version}
    response = httpx.post(
        f"{service.http}/v1/detect", params=asked, content=video, trust_env=False, timeout=60.0
    )
    provenance: dict[str, Any] = response.raise_for_status().json()["provenance"]
    inputs = [
        {"name": "features", "shape": [FEATURE_DIM, 2], "datatype": "FP32"},
        {"name": "duration", "shape": [1], "datatype": "FP32"},
    ]
    for tensor in inputs:
        tensor["data"] = [1.0] * int(np.prod(tensor["shape"]))
    body = {"inputs": inputs, "outputs": [{"name": "provenance"}]}
    path = f"/v2/models/{BUNDLE}/versions/{version}/infer"
    answer = httpx.post(service.http + path, json=body, trust_env=False).raise_for_status().json()
    assert answer["model_version"] == version
    assert (
        json.loads(answer["outputs"][0]["data"][0])["bundle_sha256"]
        == (provenance["bundle_sha256"])
    )
    return provenance


def copy_by_hand(manifest: Manifest, service: Service) -> str:
    """Write the manifest's version, and its CAS network with one byte changed; its name."""
    folder = service.repository / manifest.cas.model
    some = service.repository / load_bundle(service.repository, BUNDLE).cas.model
    shutil.copytree(some, folder)
    content = bytearray((folder / "1" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "1" / "model.onnx").write_bytes(content)
    write_public_models(service.repository, manifest)
    return manifest.cas.model


def write_version_of(repository: Path, manifest: Manifest, network_file: bytes) -> None:
    """The bundle with other bytes as its CAS network, each hash as it should be."""
    digest = hashlib.sha256(network_file).hexdigest()
    network = Network(model=f"cas-{digest[:8]}", sha256=digest)
    folder = repository / network.model
    shutil.copytree(repository / manifest.cas.model, folder)
    (folder / "1" / "model.onnx").write_bytes(network_file)
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace(manifest.cas.model, network.model))
    write_public_models(repository, manifest.model_copy(update={"cas": network}))


def publish_without_gate(source: Path, manifest: Manifest, repository: Path) -> int:
    copy_networks(source, manifest, repository)
    return write_public_models(repository, manifest)
