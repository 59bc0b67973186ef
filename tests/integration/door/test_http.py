"""The door's HTTP: tritonclient.http, curl, and what `/v1` answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.conftest import outputs, tensor
from tests.integration.door.conftest import Fronted
from tests.integration.tiny_repository import BUNDLE, CLASSES, FEATURE_DIM
from tests.integration.videos import moving_colours
from tests.requirements import require

pytestmark = pytest.mark.slow

NAMES = ("segments", "scores", "labels")


@pytest.fixture
def http(fronted: Fronted) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fronted.http, timeout=60.0, trust_env=False) as client:
        yield client


@pytest.fixture
def expected(fronted: Fronted, video: bytes) -> Any:
    """What Triton itself answers to the video."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(fronted.triton.grpc_address) as direct:
        return direct.infer(BUNDLE, [tensor("video", video)], outputs=outputs(*NAMES))


def assert_same(body: dict[str, Any], expected: Any) -> None:
    spans = [[one["start_seconds"], one["end_seconds"]] for one in body["segments"]]
    np.testing.assert_array_equal(np.array(spans, np.float32), expected.as_numpy("segments"))
    assert [one["label"].encode() for one in body["segments"]] == list(expected.as_numpy("labels"))
    assert len(spans) > 0


def test_three_ways_to_send_a_video(
    http: httpx.Client, fronted: Fronted, video: bytes, expected: Any
) -> None:
    path = fronted.root / "my video.mp4"
    path.write_bytes(video)
    for given in (
        {"files": {"video": ("my.mp4", video, "video/mp4")}},
        {"content": video, "headers": {"content-type": "video/mp4"}},
        {"json": {"uri": path.as_uri()}},
    ):
        response = http.post("/v1/detect", **given)
        assert response.status_code == 200, response.text
        assert_same(response.json(), expected)
        assert response.json()["duration_seconds"] == 12.0
        assert response.json()["provenance"]["bundle"] == BUNDLE
    assert fronted.spooled() == []


def test_curl_uploads_a_video(
    fronted: Fronted, tmp_path: Path, video: bytes, expected: Any
) -> None:
    if shutil.which("curl") is None:
        require("curl", "curl is not installed")
    (tmp_path / "my.mp4").write_bytes(video)
    command = ["curl", "--silent", "--show-error", "--fail", "-F", f"video=@{tmp_path}/my.mp4"]
    printed = subprocess.run(
        [*command, f"{fronted.http}/v1/detect"], check=True, capture_output=True, text=True
    ).stdout
    assert_same(json.loads(printed), expected)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclients_http(fronted: Fronted, video: bytes, expected: Any, binary: bool) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    given = InferInput("video", [1], "BYTES")
    given.set_data_from_numpy(np.array([video], np.object_), binary_data=True)
    with InferenceServerClient(fronted.http.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(BUNDLE)
        assert client.get_model_metadata(BUNDLE)["inputs"][2]["shape"] == [FEATURE_DIM, -1]
        wanted = [InferRequestedOutput(name, binary_data=binary) for name in NAMES]
        result = client.infer(BUNDLE, [given], outputs=wanted)
        np.testing.assert_array_equal(result.as_numpy("segments"), expected.as_numpy("segments"))
        labels = [
            label.encode() if isinstance(label, str) else label
            for label in result.as_numpy("labels")
        ]
        assert labels == list(expected.as_numpy("labels"))
        features = InferInput("features", [FEATURE_DIM, 3], "FP32")
        features.set_data_from_numpy(np.ones((FEATURE_DIM, 3), np.float32), binary_data=binary)
        duration = InferInput("duration", [1], "FP32")
        duration.set_data_from_numpy(np.array([2.0], np.float32), binary_data=binary)
        result = client.infer(BUNDLE, [features, duration], outputs=wanted[:1])
        assert result.as_numpy("segments").shape[1] == 2


def test_tritonclients_http_gets_errors_it_can_read(fronted: Fronted) -> None:
    from tritonclient.http import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    given = InferInput("uri", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"file:///etc/passwd"], np.object_))
    with (
        InferenceServerClient(fronted.http.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException, match="outside the allowed roots") as caught,
    ):
        client.infer(BUNDLE, [given])
    assert caught.value.status() == "403"


@pytest.mark.parametrize(
    ("accept", "kind", "first_line"),
    [
        ("text/csv", "text/csv; charset=utf-8", "start_seconds,end_seconds,label,score"),
        ("text/vtt", "text/vtt; charset=utf-8", "WEBVTT"),
        ("text/html, application/json;q=0.5, text/csv;q=0.9", "text/csv; charset=utf-8", "start_"),
        ("*/*", "application/json", "{"),
    ],
)
def test_accept_chooses_the_form(
    http: httpx.Client, video: bytes, accept: str, kind: str, first_line: str
) -> None:
    response = http.post("/v1/detect", content=video, headers={"accept": accept})
    assert response.headers["content-type"] == kind
    assert response.text.startswith(first_line)
    assert any(name in response.text for name in CLASSES)


def test_options_go_into_the_query(http: httpx.Client, video: bytes) -> None:
    options = {"max_segments": 2, "classes": [CLASSES[1], CLASSES[2]], "include": ["cas"]}
    body = http.post("/v1/detect", params=options, content=video).json()
    assert len(body["segments"]) == 2
    assert {one["label"] for one in body["segments"]} <= {CLASSES[1], CLASSES[2]}
    assert len(body["cas"]) == len(CLASSES) + 1
    assert len(body["cas"][0]) == len(body["position_seconds"])
    assert "features" not in body


@pytest.mark.parametrize(
    ("path", "options", "status", "code", "says"),
    [
        ("/v1/detect?nsm=1", {"content": b"x"}, 400, "INVALID_ARGUMENT", "nsm"),
        ("/v1/detect?nms=2", {"content": b"x"}, 400, "INVALID_ARGUMENT", "nms is '2'"),
        ("/v1/detect", {"content": b""}, 400, "INVALID_ARGUMENT", "video is empty"),
        ("/v1/detect", {"content": b"no video"}, 400, "INVALID_ARGUMENT", "video"),
        ("/v1/detect", {"json": {"url": "x"}}, 400, "INVALID_ARGUMENT", "expected"),
        ("/v1/detect", {"json": {"uri": "file:///etc/passwd"}}, 403, "PERMISSION_DENIED", "roots"),
        ("/v1/detect?bundle=nope", {"content": b"x"}, 404, "NOT_FOUND", "nope"),
        ("/v1/detect", {"files": {"film": b"x"}}, 400, "INVALID_ARGUMENT", "'film'"),
        ("/v1/detect?bundle=tiny_stream", {"content": b"x"}, 400, "INVALID_ARGUMENT", "stream"),
        ("/v1/nothing", {"content": b"x"}, 404, "NOT_FOUND", "there is no POST /v1/nothing"),
        ("/v1/models", {"content": b"x"}, 405, "INVALID_ARGUMENT", "Method Not Allowed"),
    ],
)
def test_refusals_are_problems(
    http: httpx.Client, path: str, options: Any, status: int, code: str, says: str
) -> None:
    response = http.post(path, **options)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert says in problem["detail"]


def test_a_message_beyond_the_limit_says_what_to_do(http: httpx.Client) -> None:
    body = http.post("/v2/models/tiny/infer", content=bytes(65 << 20)).json()
    assert body["code"] == "INVALID_ARGUMENT"
    assert "POST /v1/detect" in body["detail"]


def test_a_client_that_goes_away_cancels_its_request(fronted: Fronted, http: httpx.Client) -> None:
    video = moving_colours(120.0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{fronted.http}/v1/detect", content=video, timeout=0.5, trust_env=False)
    deadline = 30
    while 'code="CANCELLED",entry="http"' not in http.get("/metrics").text:
        deadline -= 1
        assert deadline, "the request was not cancelled"

        time.sleep(0.2)
    assert fronted.spooled() == []


def test_models_and_health(http: httpx.Client) -> None:
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").json() == {"status": "ready"}
    assert http.get("/v1/models").json() == {
        # Which bundle a version is, the supervisor says; there is none here.
        "models": [{"name": BUNDLE, "versions": ["1"], "hashes": {}, "feature_dim": FEATURE_DIM}]
    }
    assert http.get("/docs").status_code == 200


def test_another_host_is_refused_where_no_key_is_set(http: httpx.Client) -> None:
    response = http.get("/v1/models", headers={"host": "evil.example:8000"})
    assert response.status_code == 403


def test_outcomes_are_counted(http: httpx.Client, video: bytes) -> None:
    def count(code: str) -> float:
        name = f'backtal_requests_total{{bundle="{BUNDLE}",code="{code}",entry="http"}}'
        for line in http.get("/metrics").text.splitlines():
            labels, _, value = line.rpartition(" ")
            if set(labels.replace("{", ",").rstrip("}").split(",")) == set(
                name.replace("{", ",").rstrip("}").split(",")
            ):
                return float(value)
        return 0.0

    before = count("OK"), count("INVALID_ARGUMENT")
    http.post("/v1/detect", content=video)
    http.post("/v1/detect", content=b"no video")
    assert (count("OK"), count("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1)


def test_a_client_made_from_the_openapi_document(fronted: Fronted, video: bytes) -> None:
    import schemathesis

    path = fronted.root / "for a made client.mp4"
    path.write_bytes(video)
    schema = schemathesis.openapi.from_url(f"{fronted.http}/openapi.json")
    case = schema["/v1/detect"]["POST"].Case(
        body={"uri": path.as_uri()}, media_type="application/json", query={"max_segments": 2}
    )
    response = case.call_and_validate()
    assert len(response.json()["segments"]) == 2
