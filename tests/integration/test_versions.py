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
from backtal.repository import bundle_versions, load_bundle, network_path
from backtal.runtime import OnnxStages
from backtal_export.model_folders import copy_networks
from backtal_export.public_models import remove_version, write_public_models
from backtal_export.publishing import confirm
from tests.integration.service import PATIENCE_SECONDS, Service, serving, wait_for
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow


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
    write_tiny_repository(folder / "repository")
    with serving(folder / "repository", folder, "--versions", "2") as running:
        yield running


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
    service: Service,
    load: Load,
    golden: Path,
    features: FeatureSequence,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
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
    record_property("seconds from publish to served", round(time.monotonic() - since, 1))
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
    record_property("answers without an error", sum(len(told) for told in load.hashes))
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
def test_a_version_that_loads_and_does_not_answer_is_refused_by_its_trial(
    service: Service, tmp_path: Path
) -> None:
    """Its CAS network is of twice as many features: nothing but a request shows that."""
    before = service.ready_versions()
    wide = write_tiny_repository(tmp_path, flow="tvl1")
    content = network_path(tmp_path, wide.cas.model).read_bytes()
    newest = load_bundle(service.repository, BUNDLE)
    number = write_version_of(service.repository, newest, content)
    with pytest.raises(VersionRefused, match=f"version {number} .* does not answer"):
        confirm(service.repository, BUNDLE, number, service.grpc)
    assert service.ready_versions() == before
    assert load_bundle(service.repository, BUNDLE) == newest


@pytest.mark.long
def test_a_triton_that_is_killed_while_it_takes_a_version(
    service: Service, tmp_path: Path, features: FeatureSequence
) -> None:
    before = service.ready_versions()
    num_taken = len(service.events("taking_versions"))
    # A version that was refused and taken back had the number that the next one gets.
    num_refused = len(service.events("version_refused"))
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
    refused = service.events("version_refused")[num_refused:]
    assert not [event for event in refused if event["version"] == newest]


@pytest.mark.long
def test_a_request_in_flight_ends_on_the_version_that_it_began_on(
    triton: None, tmp_path: Path
) -> None:
    """And its networks stay until then, though no version that is served names them."""
    repository = tmp_path / "repository"
    first = write_tiny_repository(repository)
    second = write_tiny_repository(tmp_path / "second", cas_name="second")
    video, answers, begun = moving_colours(400.0), [], threading.Event()

    def ask(address: str) -> None:
        with Client(address, retries=NO_RETRIES) as client:
            answers.append(client.detect(video=video, on_progress=lambda *_: begun.set()))

    with serving(repository, tmp_path, at_once=2) as service:
        asking = threading.Thread(target=ask, args=(service.grpc,))
        asking.start()
        assert begun.wait(PATIENCE_SECONDS)
        newest = publish_without_gate(tmp_path / "second", second, repository)
        wait_for(lambda: service.ready_versions() == [newest])
        with Client(service.grpc) as client:
            quick = client.detect(video=moving_colours(1.0))
        assert quick.provenance["bundle_sha256"] == second.sha256
        assert answers == [], "the long request was too short for this test"
        assert first.cas.model in service.inner_models()
        asking.join()
        assert answers[0].provenance["bundle_sha256"] == first.sha256
        assert answers[0].duration_seconds == 400.0
        wait_for(lambda: first.cas.model not in service.inner_models())
        # The end of the old one's processes was no fault.
        assert len(service.events("ready")) == 1
        assert service.events("model_failed") == []


@pytest.mark.long
def test_bundles_come_and_go(triton: None, tmp_path: Path) -> None:
    """A service may start before its first bundle; one that is taken out is served no more."""
    repository, source = tmp_path / "repository", tmp_path / "source"
    repository.mkdir()
    tiny = write_tiny_repository(source)
    named = tiny.description.model_copy(update={"name": "other"})
    other = tiny.model_copy(update={"description": named})
    with serving(repository, tmp_path) as service, Client(service.grpc) as client:
        assert get(service, "/v2/health/ready", parse=False).status_code == 503
        for manifest in (tiny, other):
            publish_without_gate(source, manifest, repository)
            wait_for(lambda manifest=manifest: manifest.description.name in client.bundles())
        video = moving_colours(1.0)
        for manifest in (tiny, other):
            answer = client.detect(video=video, bundle=manifest.description.name)
            assert answer.provenance["bundle_sha256"] == manifest.sha256
        remove_version(repository, "other", 1)
        wait_for(lambda: client.bundles() == (BUNDLE,))
        # A volume that is gone takes nothing along.
        repository.rename(tmp_path / "elsewhere")
        time.sleep(3.0)
        assert client.bundles() == (BUNDLE,)
        assert client.detect(video=video).provenance["bundle_sha256"] == tiny.sha256


@pytest.mark.long
def test_a_start_beside_a_version_that_does_not_load(triton: None, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = write_tiny_repository(repository)
    write_version_of(repository, first, b"no network")
    with serving(repository, tmp_path) as service, Client(service.grpc) as client:
        answer = client.detect(video=moving_colours(1.0))
        assert answer.provenance["bundle_sha256"] == first.sha256
        older, newer = client.versions(BUNDLE)
        assert (older.is_ready, newer.is_ready) == (True, False)
        assert "cannot be loaded" in newer.problem
        # What a service had refused, it goes on refusing after Triton was killed.
        os.kill(service.events("ready")[-1]["triton_process_id"], signal.SIGKILL)
        wait_for(lambda: len(service.events("ready")) == 2)
        wait_for(client.is_ready)
        answer = client.detect(video=moving_colours(1.0))
        assert answer.provenance["bundle_sha256"] == first.sha256
        assert len(service.events("version_refused")) == 1
    # Alone it ends the start, with the reason.
    remove_version(repository, BUNDLE, 1)
    command = [sys.executable, "-m", "backtal.cli", "serve", "--repository", str(repository)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "no bundle can be served: version 2 of tiny: cas-" in ended.stderr


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


def write_version_of(repository: Path, manifest: Manifest, network_file: bytes) -> int:
    """The bundle with other bytes as its CAS network, each hash as it should be."""
    digest = hashlib.sha256(network_file).hexdigest()
    network = Network(model=f"cas-{digest[:8]}", sha256=digest)
    folder = repository / network.model
    shutil.copytree(repository / manifest.cas.model, folder)
    (folder / "1" / "model.onnx").write_bytes(network_file)
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace(manifest.cas.model, network.model))
    return write_public_models(repository, manifest.model_copy(update={"cas": network}))


def publish_without_gate(source: Path, manifest: Manifest, repository: Path) -> int:
    copy_networks(source, manifest, repository)
    return write_public_models(repository, manifest)
