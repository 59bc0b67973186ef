"""Bad requests get their code and a message that helps, and the next request is answered."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.errors import from_wire
from tests.integration.conftest import Served, tensor
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM
from tests.integration.videos import sound_only, truncated, without_frames

pytestmark = pytest.mark.slow

FEATURES = np.zeros((FEATURE_DIM, 4), np.float32)
DURATION = np.array([2.0], np.float32)
NOT_A_NUMBER = np.where(np.arange(4) == 2, np.nan, FEATURES).astype(np.float32)


@pytest.fixture
def refuse(client: Any) -> Callable[..., str]:
    """Sends a bad request and gives the message, once code and the next answer are checked."""

    def send(inputs: dict[str, Any], code: str, grpc_code: str = "", **parameters: Any) -> str:
        from tritonclient.utils import InferenceServerException

        tensors = [tensor(name, value) for name, value in inputs.items()]
        with pytest.raises(InferenceServerException) as caught:
            client.infer(BUNDLE, tensors, parameters=parameters)
        error = from_wire(caught.value.message())
        assert error is not None, caught.value.message()
        assert error.grpc_code == code
        assert caught.value.status() == f"StatusCode.{grpc_code or code}"
        assert "Traceback" not in caught.value.message()
        good = [tensor("features", FEATURES), tensor("duration", DURATION)]
        assert client.infer(BUNDLE, good).as_numpy("duration").tolist() == [2.0]
        return error.message

    return send


def test_an_empty_file(refuse: Callable[..., str]) -> None:
    assert "0 bytes" in refuse({"video": b""}, "INVALID_ARGUMENT")


def test_text(refuse: Callable[..., str]) -> None:
    assert "no video" in refuse({"video": b"This is no video. " * 100}, "INVALID_ARGUMENT")


def test_sound_only(refuse: Callable[..., str]) -> None:
    message = refuse({"video": sound_only()}, "INVALID_ARGUMENT")
    assert "no video stream" in message
    assert "audio" in message


def test_a_truncated_file(refuse: Callable[..., str], video: bytes) -> None:
    message = refuse({"video": truncated(video)}, "INVALID_ARGUMENT")
    assert "allow_partial" in message


def test_a_truncated_file_is_answered_in_part_where_that_is_allowed(
    client: Any, video: bytes
) -> None:
    import json

    from tests.integration.conftest import outputs

    result = client.infer(
        BUNDLE,
        [tensor("video", truncated(video))],
        outputs=outputs("duration", "provenance"),
        parameters={"allow_partial": True},
    )
    assert 4.0 < result.as_numpy("duration")[0] < 11.0
    assert json.loads(result.as_numpy("provenance")[0])["warnings"]


def test_a_file_that_claims_frames_it_does_not_have(
    refuse: Callable[..., str], video: bytes
) -> None:
    message = refuse({"video": without_frames(video)}, "INVALID_ARGUMENT")
    assert "300 frames" in message
    assert "no frame" in message


def test_a_uri_outside_the_roots(
    refuse: Callable[..., str], served: Served, tmp_path: Path
) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    link = served.root / "link.mp4"
    link.symlink_to(tmp_path / "secret.mp4")
    for uri in (
        (tmp_path / "secret.mp4").as_uri(),
        f"file://{served.root}/../{tmp_path.name}/secret.mp4",
        link.as_uri(),
    ):
        # Triton has no PERMISSION_DENIED.
        message = refuse({"uri": uri}, "PERMISSION_DENIED", "INVALID_ARGUMENT")
        assert uri in message
        assert str(served.root) in message


def test_a_uri_that_is_not_there(refuse: Callable[..., str], served: Served) -> None:
    uri = f"file://{served.root}/missing.mp4"
    assert uri in refuse({"uri": uri}, "NOT_FOUND")


def test_a_uri_of_another_scheme(refuse: Callable[..., str]) -> None:
    uri = "ftp://example.org/video.mp4"
    message = refuse({"uri": uri}, "INVALID_ARGUMENT")
    assert uri in message
    assert "allowed are file:, https:, s3:" in message


@pytest.mark.parametrize("uri", ["https://example.org/video.mp4", "s3://bucket/video.mp4"])
def test_a_remote_uri_that_the_operator_did_not_allow(refuse: Callable[..., str], uri: str) -> None:
    message = refuse({"uri": uri}, "PERMISSION_DENIED", "INVALID_ARGUMENT")
    assert uri in message
    assert "started without any" in message


def test_a_uri_that_is_no_video(refuse: Callable[..., str], served: Served) -> None:
    (served.root / "notes.txt").write_text("no video")
    uri = (served.root / "notes.txt").as_uri()
    assert "no video" in refuse({"uri": uri}, "INVALID_ARGUMENT")


def test_two_inputs(refuse: Callable[..., str], video: bytes) -> None:
    message = refuse({"video": video, "uri": "file:///x"}, "INVALID_ARGUMENT")
    assert "video and uri" in message


def test_no_input(refuse: Callable[..., str]) -> None:
    message = refuse({"duration": DURATION}, "INVALID_ARGUMENT")
    assert "give one of video, uri, features" in message


def test_an_unknown_parameter(refuse: Callable[..., str]) -> None:
    good = {"features": FEATURES, "duration": DURATION}
    message = refuse(good, "INVALID_ARGUMENT", score_treshold=0.5)
    assert "'score_treshold'" in message
    assert "did you mean 'score_threshold'" in message


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("score_threshold", "much", "a number"),
        ("nms", 0.0, "(0, 1]"),
        ("max_segments", 0, "at least 1"),
        ("max_segments", "2.5", "a whole number"),
        ("classes", "jump", "a JSON list"),
        ("classes", "[]", "an empty list"),
        ("allow_partial", "perhaps", "true and false"),
        ("backbone", "0" * 64, "another backbone"),
    ],
)
def test_a_parameter_out_of_its_range(
    refuse: Callable[..., str], name: str, value: Any, allowed: str
) -> None:
    good = {"features": FEATURES, "duration": DURATION}
    message = refuse(good, "INVALID_ARGUMENT", **{name: value})
    assert message.startswith(name)
    assert allowed in message


def test_an_unknown_class(refuse: Callable[..., str]) -> None:
    good = {"features": FEATURES, "duration": DURATION}
    message = refuse(good, "INVALID_ARGUMENT", classes='["jumb"]')
    assert "'jumb'" in message
    assert "did you mean 'jump'" in message


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"features": FEATURES}, "needs duration"),
        ({"features": FEATURES[:, :0], "duration": DURATION}, r"[8, 0]"),
        ({"features": NOT_A_NUMBER, "duration": DURATION}, "features"),
        ({"features": FEATURES, "duration": -DURATION}, "duration is -2.0"),
        ({"features": FEATURES, "duration": DURATION * np.nan}, "duration is nan"),
        (
            {"features": FEATURES, "duration": DURATION, "clip_end_seconds": FEATURES[0]},
            "both or neither",
        ),
        (
            {
                "features": FEATURES,
                "duration": DURATION,
                "clip_start_seconds": np.zeros(3, np.float32),
                "clip_end_seconds": np.ones(3, np.float32),
            },
            "3 clips",
        ),
        ({"uri": "file:///x", "duration": DURATION}, "duration goes with features"),
    ],
)
def test_features_that_do_not_fit(
    refuse: Callable[..., str], inputs: dict[str, Any], says: str
) -> None:
    assert says in refuse(inputs, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "inputs",
    [
        {"features": FEATURES[:5], "duration": DURATION},
        {"features": FEATURES.astype(np.float64), "duration": DURATION},
        {"features": FEATURES[None], "duration": DURATION},
        {"video": np.array([b"a", b"b"], np.object_)},
        {"frames": FEATURES},
    ],
)
def test_what_triton_itself_refuses(client: Any, inputs: dict[str, Any]) -> None:
    from tritonclient.utils import InferenceServerException

    tensors = [tensor(name, value) for name, value in inputs.items()]
    name = next(iter(inputs))
    with pytest.raises(InferenceServerException, match=re.escape(name)) as caught:
        client.infer(BUNDLE, tensors)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_an_unknown_model(client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="nobody") as caught:
        client.infer("nobody", [tensor("uri", "file:///x")])
    assert caught.value.status() in ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE")


def test_an_inner_model_refuses_a_wrong_shape_by_name(client: Any, served: Served) -> None:
    from tritonclient.utils import InferenceServerException

    wrong = np.zeros((1, FEATURE_DIM + 1, 5), np.float32)
    with pytest.raises(InferenceServerException, match="features") as caught:
        client.infer(served.manifest.cas.model, [tensor("features", wrong)])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
