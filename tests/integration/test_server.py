"""What a real server answers to good requests, and that it is what the same code gives offline."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backtal.manifest import Manifest
from backtal.pipeline import Answer, Pipeline, Request
from tests.integration.conftest import ALL_OUTPUTS, Served, outputs, tensor
from tests.integration.tiny_repository import BUNDLE, CLASSES, FEATURE_DIM
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow


@pytest.fixture
def offline(served: Served) -> Pipeline:
    from backtal.runtime import OnnxStages

    return Pipeline(served.manifest, OnnxStages(served.repository, served.manifest))


@pytest.fixture
def feature_inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "features": random.normal(size=(FEATURE_DIM, 30)).astype(np.float32),
        "duration": np.array([19.2], np.float32),
    }


def test_a_video_becomes_segments(client: Any, video: bytes) -> None:
    result = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs(*ALL_OUTPUTS))
    spans, scores = result.as_numpy("segments"), result.as_numpy("scores")
    labels = [label.decode() for label in result.as_numpy("labels")]
    assert spans.dtype == scores.dtype == np.float32
    assert spans.shape == (len(scores), 2)
    assert len(labels) == len(scores) > 0
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans >= 0).all()
    assert (spans <= 12.0).all()
    assert (np.diff(scores) <= 0).all()
    assert set(labels) <= set(CLASSES)
    assert result.as_numpy("duration").tolist() == [12.0]
    assert result.as_numpy("cas").shape == (len(CLASSES) + 1, 19)
    np.testing.assert_allclose(
        result.as_numpy("position_seconds"), (np.arange(19) + 0.5) * 0.64, rtol=1e-6
    )
    features = result.as_numpy("features")
    assert features.shape == (FEATURE_DIM, len(result.as_numpy("clip_start_seconds")))
    assert len(result.as_numpy("clip_end_seconds")) == features.shape[1]


def test_provenance_says_what_made_the_answer(client: Any, served: Served, video: bytes) -> None:
    result = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs("provenance"))
    told = json.loads(result.as_numpy("provenance")[0])
    assert told["bundle"] == BUNDLE
    assert told["bundle_sha256"] == served.manifest.sha256
    assert told["num_frames_decoded"] == 300
    assert told["num_frames_declared"] == 300
    assert (told["video"]["codec"], told["video"]["frames_per_second"]) == ("h264", 25.0)
    assert told["classes"] == [*CLASSES, "background"]
    assert told["features"]["backbone_sha256"] == [served.manifest.backbones["rgb"].sha256]
    assert told["warnings"] == []
    assert all(seconds >= 0 for seconds in told["stage_seconds"].values())
    assert told["stage_seconds"]


def test_only_what_was_asked_for_is_sent(client: Any, video: bytes) -> None:
    result = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs("scores", "labels"))
    sent = {output.name for output in result.get_response().outputs}
    assert sent == {"scores", "labels"}


def test_the_server_and_the_offline_path_agree_to_the_bit(
    client: Any, offline: Pipeline, video: bytes
) -> None:
    result = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs(*ALL_OUTPUTS))
    _assert_same(result, offline.run(Request(video=video)))


def test_a_uri_gives_the_answer_of_its_bytes(
    client: Any, served: Served, offline: Pipeline, video: bytes
) -> None:
    path = served.root / "a video.mp4"
    path.write_bytes(video)
    uri = path.as_uri()
    result = client.infer(BUNDLE, [tensor("uri", uri)], outputs=outputs(*ALL_OUTPUTS))
    _assert_same(result, offline.run(Request(video=video)))


def test_an_answer_without_its_large_parts_is_the_same(client: Any) -> None:
    """Then the CAS and the windows go on while the video is decoded, and nothing is kept."""
    video = moving_colours(40.0, seed=5)
    inputs = [tensor("video", video)]
    whole = client.infer(BUNDLE, inputs, outputs=outputs(*ALL_OUTPUTS))
    assert len(whole.as_numpy("segments")) > 3
    small = ("segments", "scores", "labels", "duration", "position_seconds")
    for names in (small, (*small, "cas")):
        result = client.infer(BUNDLE, inputs, outputs=outputs(*names))
        for name in names:
            np.testing.assert_array_equal(result.as_numpy(name), whole.as_numpy(name), name)


def test_features_sent_back_give_the_videos_answer(client: Any, video: bytes) -> None:
    first = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs(*ALL_OUTPUTS))
    names = ("features", "duration", "clip_start_seconds", "clip_end_seconds")
    inputs = [tensor(name, first.as_numpy(name)) for name in names]
    second = client.infer(BUNDLE, inputs, outputs=outputs(*ALL_OUTPUTS))
    for name in ALL_OUTPUTS:
        if name != "provenance":
            np.testing.assert_array_equal(first.as_numpy(name), second.as_numpy(name), name)


def test_features_without_times_are_equal_parts(
    client: Any, feature_inputs: dict[str, np.ndarray]
) -> None:
    inputs = [tensor(name, value) for name, value in feature_inputs.items()]
    result = client.infer(BUNDLE, inputs, outputs=outputs(*ALL_OUTPUTS))
    edges = np.linspace(0, 19.2, 31)
    np.testing.assert_allclose(result.as_numpy("clip_start_seconds"), edges[:-1], rtol=1e-6)
    np.testing.assert_allclose(result.as_numpy("clip_end_seconds"), edges[1:], rtol=1e-6)


def test_parameters_choose_among_the_segments(
    client: Any, feature_inputs: dict[str, np.ndarray]
) -> None:
    def ask(**parameters: Any) -> Any:
        inputs = [tensor(name, value) for name, value in feature_inputs.items()]
        return client.infer(BUNDLE, inputs, parameters=parameters)

    everything = ask()
    scores = everything.as_numpy("scores")
    assert len(scores) > 3
    assert len(ask(max_segments=2).as_numpy("scores")) == 2
    middle = float(np.sort(scores)[len(scores) // 2])
    # As a number and as text: not every client can send a floating-point parameter.
    for given in (middle, repr(middle)):
        assert (ask(score_threshold=given).as_numpy("scores") >= np.float32(middle)).all()
    only = ask(classes=json.dumps([CLASSES[2]])).as_numpy("labels")
    assert {label.decode() for label in only} == {CLASSES[2]}
    assert len(ask(nms=1.0).as_numpy("scores")) > len(scores)


def test_the_right_backbone_is_accepted(
    client: Any, served: Served, feature_inputs: dict[str, np.ndarray]
) -> None:
    inputs = [tensor(name, value) for name, value in feature_inputs.items()]
    sha256 = served.manifest.backbones["rgb"].sha256
    result = client.infer(
        BUNDLE, inputs, outputs=outputs("provenance"), parameters={"backbone": sha256}
    )
    told = json.loads(result.as_numpy("provenance")[0])
    assert told["features"]["backbone_sha256"] == [sha256]


def test_no_segment_is_an_answer(client: Any, feature_inputs: dict[str, np.ndarray]) -> None:
    inputs = [tensor(name, value) for name, value in feature_inputs.items()]
    names = outputs("segments", "scores", "labels")
    result = client.infer(BUNDLE, inputs, outputs=names, parameters={"score_threshold": 100})
    assert result.as_numpy("segments").shape == (0, 2)
    assert result.as_numpy("scores").shape == (0,)
    assert result.as_numpy("labels").shape == (0,)


def test_requests_at_once_do_not_mix(client: Any, offline: Pipeline) -> None:
    videos = [moving_colours(3.0 + seed, seed=seed) for seed in range(4)]
    expected = [offline.run(Request(video=video)) for video in videos]

    def ask(index: int) -> Any:
        inputs = [tensor("video", videos[index])]
        return client.infer(BUNDLE, inputs, outputs=outputs(*ALL_OUTPUTS))

    order = list(range(4)) * 3
    with ThreadPoolExecutor(max_workers=6) as pool:
        for index, result in zip(order, pool.map(ask, order), strict=True):
            _assert_same(result, expected[index])


def test_only_the_bundles_are_public_by_name(client: Any, served: Served) -> None:
    index = client.get_model_repository_index()
    names = {model.name for model in index.models if model.state == "READY"}
    manifest: Manifest = served.manifest
    inner = {manifest.cas.model, *(network.model for network in manifest.backbones.values())}
    assert names - inner == {BUNDLE, f"{BUNDLE}_stream"}


def _assert_same(result: Any, answer: Answer) -> None:
    np.testing.assert_array_equal(result.as_numpy("features"), answer.features.values)
    np.testing.assert_array_equal(result.as_numpy("cas"), answer.cas)
    spans = [(segment.start_seconds, segment.end_seconds) for segment in answer.segments]
    np.testing.assert_array_equal(
        result.as_numpy("segments"), np.array(spans, np.float32).reshape(-1, 2)
    )
    scores = np.array([segment.score for segment in answer.segments], np.float32)
    np.testing.assert_array_equal(result.as_numpy("scores"), scores)
    labels = [label.decode() for label in result.as_numpy("labels")]
    assert labels == [segment.label for segment in answer.segments]
