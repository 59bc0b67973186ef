"""What hostile clients send to the door: it refuses, stays up, and keeps nothing."""

from __future__ import annotations

import random
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.integration.door.conftest import Fronted, running
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

SHORT_MUTATIONS, LONG_MUTATIONS = 500, 10_000


@pytest.fixture(scope="module")
def strict(tiny_repository: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    """A door that loses patience soon. After the attacks it answers, and found no bug of ours."""
    folder = tmp_path_factory.mktemp("strict")
    limits = {"header_seconds": 1.0, "body_idle_seconds": 1.0, "answer_idle_seconds": 1.0}
    with running(tiny_repository[0], folder, limits=limits) as service:
        process_id = service.door.process_id
        yield service
        assert_well(service)
        assert service.door.process_id == process_id, "the door died"
        assert "failed by a bug" not in service.log_file.read_text()


def assert_well(service: Fronted) -> None:
    """It answers a good request, counted no bug, and nothing lies in the spool."""
    started = time.monotonic()
    response = httpx.post(
        f"{service.http}/v1/detect", content=moving_colours(1.0), timeout=30.0, trust_env=False
    )
    assert response.status_code == 200
    assert time.monotonic() - started < 10.0
    metrics = httpx.get(f"{service.http}/metrics", timeout=30.0, trust_env=False).text
    assert 'code="INTERNAL"' not in metrics
    assert service.spooled() == []


def exchange(
    service: Fronted, *parts: bytes, seconds: float = 10.0, pause_seconds: float = 0.0
) -> bytes:
    """What comes back on a bare connection, until it is closed or `seconds` have passed."""
    host, _, port = service.http.removeprefix("http://").rpartition(":")
    received = bytearray()
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_seconds)
            while chunk := connection.recv(65536):
                received += chunk
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                received += b"(still open)"
    return bytes(received)


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def request(path: str, headers: str = "", body: bytes = b"", method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize("path", ["/v1/detect", f"/v2/models/{BUNDLE}/infer", "/v1/jobs"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_json(strict: Fronted, path: str, opening: bytes) -> None:
    body = opening * (60_000 if path.startswith("/v1") and opening == b"[" else 10_000)
    headers = {"content-type": "application/json"}
    response = httpx.post(strict.http + path, content=body, headers=headers, trust_env=False)
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_a_million_chunks(strict: Fronted) -> None:
    head = request("/v1/detect", "transfer-encoding: chunked\r\n")
    started = time.monotonic()
    answer = exchange(strict, head, b"1\r\nx\r\n" * 1_000_000)
    assert statuses(answer)[:1] in ([400], [])
    assert b"still open" not in answer
    assert time.monotonic() - started < 10.0


@pytest.mark.parametrize(
    "flood",
    [
        b"x-a: b\r\n" * 5000,
        b"x-a: " + b"b" * 1_000_000,
        b"x" * 1_000_000,
    ],
    ids=["many", "one long value", "one long name"],
)
def test_header_floods(strict: Fronted, flood: bytes) -> None:
    answer = exchange(strict, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + flood)
    assert statuses(answer)[:1] in ([400], [])
    assert b"still open" not in answer


def test_a_slow_header_is_not_waited_for(strict: Fronted) -> None:
    for first in (b"", b"GET /healthz HTTP/1.1\r\nho", b"\r\n"):
        started = time.monotonic()
        answer = exchange(strict, first, seconds=8.0)
        assert b"still open" not in answer
        assert time.monotonic() - started < 6.0


def test_a_body_that_stops_is_not_waited_for(strict: Fronted) -> None:
    head = request("/v1/detect", "content-length: 1000000\r\n")
    answer = exchange(strict, head + bytes(500_000), seconds=8.0)
    assert statuses(answer) == [504]
    assert strict.spooled() == []


def large_answer(num_clips: int = 400_000) -> bytes:
    """A request whose answer, 13 MB of features, does not fit into the kernel's buffers."""
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    features = InferInput("features", [FEATURE_DIM, num_clips], "FP32")
    features.set_data_from_numpy(np.ones((FEATURE_DIM, num_clips), np.float32))
    duration = InferInput("duration", [1], "FP32")
    duration.set_data_from_numpy(np.array([100.0], np.float32))
    body, json_bytes = InferenceServerClient.generate_request_body(
        [features, duration], outputs=[InferRequestedOutput("features", binary_data=True)]
    )
    headers = f"content-length: {len(body)}\r\ninference-header-content-length: {json_bytes}\r\n"
    return request(f"/v2/models/{BUNDLE}/infer", headers, body)


def test_a_client_that_stops_reading_is_let_go(strict: Fronted) -> None:
    host, _, port = strict.http.removeprefix("http://").rpartition(":")
    message = large_answer()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(message)
        watched = select.poll()
        watched.register(connection, 0)
        assert_well(strict)
        # It hangs up on us, which shows without a byte being read.
        assert [event & select.POLLHUP for _, event in watched.poll(15_000)] == [select.POLLHUP]


def test_a_slow_reader_gets_its_whole_answer(strict: Fronted) -> None:
    host, _, port = strict.http.removeprefix("http://").rpartition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        connection.connect((host, int(port)))
        connection.sendall(large_answer())
        received = bytearray()
        # Longer in all than a connection may stand still.
        while len(received) < FEATURE_DIM * 400_000 * 4:
            received += connection.recv(1 << 20)
            time.sleep(0.05)
    assert statuses(bytes(received[:100])) == [200]


def test_half_an_upload_leaves_nothing(strict: Fronted) -> None:
    host, _, port = strict.http.removeprefix("http://").rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                request("/v1/detect", "content-length: 9000000\r\n") + bytes(4 << 20)
            )
    deadline = time.monotonic() + 5.0
    while strict.spooled():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "headers",
    [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "content-length: 4\r\ncontent-length: 40\r\n",
        "content-length: +4\r\n",
        "content-length: 4, 40\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "content-length: 4\r\n folded\r\n",
        "x: a\nsmuggled: b\r\ncontent-length: 4\r\n",
    ],
)
def test_what_two_servers_would_read_differently(strict: Fronted, headers: str) -> None:
    hidden = b"0\r\n\r\n" + request("/healthz", method="GET")
    answer = exchange(strict, request("/v1/detect", headers, hidden), seconds=3.0)
    assert statuses(answer) in ([400], [])


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fpasswd",
        "../../etc/passwd",
        "%2e%2e",
        "tiny%00",
        "tiny/versions/..",
        "a" * 4000,
    ],
)
def test_traversal_in_names(strict: Fronted, name: str) -> None:
    answer = exchange(
        strict,
        request(f"/v2/models/{name}/infer", "content-length: 2\r\nconnection: close\r\n", b"{}"),
    )
    assert statuses(answer)[:1] in ([404], [400])


def test_oversized_tensors(strict: Fronted) -> None:
    for shape in ([8, 2**61], [8, 2**63 - 1], [8, -5], [8, 10**30], [8] * 60):
        given = {"name": "features", "shape": shape, "datatype": "FP32", "data": [1.0]}
        response = httpx.post(
            f"{strict.http}/v2/models/{BUNDLE}/infer", json={"inputs": [given]}, trust_env=False
        )
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_ARGUMENT")


def mutations(number: int) -> Iterator[bytes]:
    """Good requests with bytes changed, cut, doubled; each that parses gets to the checks."""
    from tritonclient.grpc import service_pb2

    rng = random.Random(13)
    features = service_pb2.ModelInferRequest(model_name=BUNDLE, id="1")
    features.inputs.add(name="features", datatype="FP32", shape=[8, 4])
    features.inputs.add(name="duration", datatype="FP32", shape=[1])
    features.raw_input_contents.append(np.ones((8, 4), np.float32).tobytes())
    features.raw_input_contents.append(np.array([2.5], np.float32).tobytes())
    features.parameters["nms"].double_param = 0.5
    features.parameters["classes"].string_param = '["jump"]'
    features.outputs.add(name="segments")
    uri = service_pb2.ModelInferRequest(model_name=BUNDLE)
    uri.inputs.add(name="uri", datatype="BYTES", shape=[1])
    uri.raw_input_contents.append((8).to_bytes(4, "little") + b"file:///")
    seeds = [features.SerializeToString(), uri.SerializeToString()]
    for _ in range(number):
        message = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(message))
            kind = rng.randrange(4)
            if kind == 0:
                message[place] = rng.randrange(256)
            elif kind == 1:
                del message[place : place + rng.randint(1, 8)]
            elif kind == 2:
                message[place:place] = message[place : place + rng.randint(1, 16)]
            else:
                message[place] ^= 1 << rng.randrange(8)
            message = message or bytearray(b"\n")
        yield bytes(message)


@pytest.mark.parametrize(
    "number", [SHORT_MUTATIONS, pytest.param(LONG_MUTATIONS, marks=pytest.mark.long)]
)
def test_mutated_messages(strict: Fronted, number: int) -> None:
    codes: set[str] = set()
    with grpc.insecure_channel(strict.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for message in mutations(number):
            try:
                infer(message, timeout=20.0)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    assert codes <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
    assert "INVALID_ARGUMENT" in codes


@pytest.mark.parametrize("examples", [8, pytest.param(150, marks=pytest.mark.long)])
def test_schemathesis_finds_no_crash(strict: Fronted, tmp_path: Path, examples: int) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{strict.http}/openapi.json"]
    options = ["--checks", "not_a_server_error", "--max-examples", str(examples), "--seed", "7"]
    options += ["--exclude-path-regex", "events", "--request-timeout", "20"]
    # A short timeout_seconds passes, and what has passed is told: no fault of the server's.
    told = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'
    (tmp_path / "schemathesis.toml").write_text(told)
    finished = subprocess.run(
        [*command, *options, "--phases", "fuzzing", "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-1000:]
