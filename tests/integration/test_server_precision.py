"""The `openvino` backend inside a real Triton answers as offline work does, at each precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.manifest import Manifest
from backtal.precision import computed_in, processor_has_bfloat16
from backtal.runtime import OnnxStages
from backtal_export.gates import GateThresholds, cosines
from backtal_export.runtimes import Runtime
from tests.integration.conftest import tensor
from tests.integration.tiny_repository import FEATURE_DIM, write_tiny_repository

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Precise:
    """A repository whose networks OpenVINO computes, and a server of it."""

    repository: Path
    manifest: Manifest
    client: Any
    log_file: Path


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precise(
    request: pytest.FixtureRequest, triton: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Precise]:
    from tritonclient.grpc import InferenceServerClient

    from backtal_serving.embedded import EmbeddedServer

    repository = tmp_path_factory.mktemp("repository")
    log_file = tmp_path_factory.mktemp("log") / "triton.log"
    manifest = write_tiny_repository(repository, Runtime(request.param, "openvino"))
    with (
        EmbeddedServer(repository, log_file=log_file) as server,
        InferenceServerClient(server.grpc_address) as client,
    ):
        yield Precise(repository, manifest, client, log_file)
    assert server.exit_code == 0


def test_features_and_cas_are_those_of_offline_work(precise: Precise) -> None:
    random = np.random.default_rng(0)
    clips = random.integers(0, 256, (3, 16, 224, 224, 3)).astype(np.uint8)
    sequence = random.normal(size=(1, FEATURE_DIM, 37)).astype(np.float32)
    stages = OnnxStages(precise.repository, precise.manifest)
    features = _served(precise, "rgb", "clips", clips, "features")
    cas = _served(precise, "cas", "features", sequence, "cas")
    if precise.manifest.cas.precision == "float32":
        np.testing.assert_array_equal(features, stages.features("rgb", clips))
        np.testing.assert_array_equal(cas, stages.cas(sequence).cas)
        return
    gate = GateThresholds()
    assert cosines(features, stages.features("rgb", clips)).min() >= gate.minimum_feature_cosine
    wanted = stages.cas(sequence).cas
    assert np.abs(cas - wanted).max() <= gate.maximum_cas_error * np.abs(wanted).max()


def test_bfloat16_is_computed_in_bfloat16_where_the_processor_has_it(precise: Precise) -> None:
    random = np.random.default_rng(1)
    sequence = random.normal(size=(1, FEATURE_DIM, 37)).astype(np.float32)
    exact = OnnxStages(precise.repository, _in_float32(precise.manifest)).cas(sequence).cas
    error = np.abs(_served(precise, "cas", "features", sequence, "cas") - exact).max()
    here = computed_in(precise.manifest.cas.precision)
    assert (error > 1e-4) == (here == "bfloat16")
    told = "runs in float32: this processor has no bfloat16" in precise.log_file.read_text()
    asked = precise.manifest.cas.precision == "bfloat16"
    assert told == (asked and not processor_has_bfloat16())


def _in_float32(manifest: Manifest) -> Manifest:
    cas = manifest.cas.model_copy(update={"precision": "float32"})
    return manifest.model_copy(update={"cas": cas})


def _served(precise: Precise, stage: str, given: str, value: Any, wanted: str) -> Any:
    manifest = precise.manifest
    model = manifest.cas.model if stage == "cas" else manifest.backbones["rgb"].model
    return precise.client.infer(model, [tensor(given, value)]).as_numpy(wanted)
