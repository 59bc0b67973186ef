"""A bundle of colours and flow, from a video's bytes to its answer: in process and in Triton."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal.client import Client
from backtal.commands import features as command
from backtal.features import FeatureSequence
from backtal.manifest import FlowMethod
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle
from backtal_export.repository import write_bundle
from tests.i3d_weights import seeded_weights
from tests.integration.conftest import outputs, tensor
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM, write_tiny_repository
from tests.integration.videos import moving_colours
from tests.made_videos import steady

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("flow", ["dis", "tvl1-network"])
def test_triton_answers_a_video_with_both_streams_as_the_process_does(
    triton: None, tmp_path: Path, flow: FlowMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tritonclient.grpc import InferenceServerClient

    from backtal_serving.embedded import EmbeddedServer

    repository = tmp_path / "repository"
    manifest = write_tiny_repository(repository, flow=flow)
    if flow == "tvl1-network":
        # Neither process has a use for OpenCV.
        monkeypatch.setitem(sys.modules, "cv2", None)
    video = moving_colours(1.0)
    local = Pipeline(manifest, OnnxStages(repository, manifest)).run(Request(video=video))
    assert local.features.streams == ("rgb", "flow")
    assert np.abs(local.features.values[FEATURE_DIM:]).max() > 0.01
    with (
        EmbeddedServer(repository, [], log_file=tmp_path / "log") as server,
        InferenceServerClient(server.grpc_address) as client,
    ):
        result = client.infer(
            BUNDLE, [tensor("video", video)], outputs=outputs("features", "cas", "segments")
        )
        np.testing.assert_array_equal(result.as_numpy("features"), local.features.values)
        np.testing.assert_array_equal(result.as_numpy("cas"), local.cas)
        with Client(server.grpc_address) as ours:
            answer = ours.detect(video=video, bundle=BUNDLE)
    assert [s.label for s in answer.segments] == [s.label for s in local.segments]
    assert answer.provenance["features"]["clip_plan"]["flow"] == flow


def test_i3d_of_both_streams_goes_from_state_dicts_to_a_videos_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = []
    for stream, channels in (("rgb", 3), ("flow", 2)):
        path = tmp_path / f"{stream}_imagenet.pt"
        weights = seeded_weights(channels)
        torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, path)
        words += ["--backbone", f"i3d-{stream}", "--weights", f"i3d-{stream}={path}"]
    video = steady(8, size=(96, 96))
    (tmp_path / "one.mp4").write_bytes(video)
    (tmp_path / "plan.yaml").write_text("flow: dis\n")
    words += ["--clip-plan", str(tmp_path / "plan.yaml"), "--to", str(tmp_path)]
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args([str(tmp_path / "one.mp4"), *words])) == 0
    made = FeatureSequence.load(tmp_path / "one.npz")
    assert made.values.shape == (2048, 1)
    assert [b.name for b in made.provenance.backbones] == ["i3d-rgb", "i3d-flow"]

    repository = tmp_path / "repository"
    paths = {f"i3d-{stream}": tmp_path / f"{stream}_imagenet.pt" for stream in ("rgb", "flow")}
    write_bundle(repository, "kinetics400", weights=paths, say=lambda _: None)
    manifest = load_bundle(repository, "kinetics400")
    assert manifest.description.clip_plan.flow == "tvl1"
    assert manifest.description.feature_dim == 2048
    assert manifest.backbones["flow"].sha256 == made.provenance.backbone_sha256[1]
    answer = Pipeline(manifest, OnnxStages(repository, manifest)).run(Request(features=made))
    np.testing.assert_allclose(answer.cas.sum(axis=0), 1, rtol=1e-5)
