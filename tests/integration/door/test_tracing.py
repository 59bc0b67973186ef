"""One request's spans, read back from a collector; and what no span and no log may hold."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backtal.client import NO_RETRIES, Client
from backtal.errors import InvalidArgument
from tests.integration.conftest import tensor
from tests.integration.door.conftest import Fronted, running
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.otlp_receiver import CLIENT, PATIENCE_SECONDS, SERVER, Receiver, otlp_receiver
from tests.requirements import PROJECT_ROOT

pytestmark = pytest.mark.slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# Allowed, and nobody listens there.
NOBODY = "https://127.0.0.1:9/videos/"
STAGES = ["decode", "rgb", "cas", "localize"]
CALLER = """
import sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from backtal.client import Client

address, endpoint, video = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
trace.set_tracer_provider(provider)
with trace.get_tracer("caller").start_as_current_span("caller") as span, Client(address) as client:
    client.detect(video=Path(video).read_bytes(), bundle="tiny")
    print(trace.format_trace_id(span.get_span_context().trace_id))
"""


@dataclass(frozen=True)
class Traced:
    """A service that tells `receiver` of its spans."""

    service: Fronted
    receiver: Receiver

    def logs(self) -> list[dict[str, Any]]:
        """The lines of JSON that door and models wrote."""
        text = self.service.log_file.read_text() + (
            self.service.log_file.with_name("triton.log").read_text()
        )
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def lines_of(self, trace_id: str) -> list[dict[str, Any]]:
        """The lines of a trace, once door and pipeline have both written theirs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := [line for line in self.logs() if line.get("trace_id") == trace_id]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def traced(tiny_repository: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch, otlp_receiver() as receiver:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        models = {
            "tracing": {"endpoint": receiver.endpoint},
            "remote": {"prefixes": [NOBODY], "private_networks": ["127.0.0.0/8"]},
        }
        with running(tiny_repository[0], folder, serving=models) as service:
            yield Traced(service, receiver)


def traceparent(trace_id: str, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{PARENT}-{flags}"}


def post(traced: Traced, path: str = "/v1/detect", **options: Any) -> httpx.Response:
    return httpx.post(traced.service.http + path, trust_env=False, timeout=60.0, **options)


def test_a_trace_leads_from_the_caller_to_every_stage(traced: Traced, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(moving_colours(4.0))
    command = [sys.executable, "-c", CALLER, traced.service.grpc, traced.receiver.endpoint]
    answer = subprocess.run(
        [*command, str(video)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    trace_id = answer.stdout.strip()
    caller, asked, door, queue, triton, pipeline, *stages = traced.receiver.of_trace(trace_id, 10)
    names = [span.name for span in (caller, asked, door, queue, triton, pipeline)]
    assert names == ["caller", "detect", "detect", "queue", "triton", "pipeline"]
    assert [span.name for span in stages] == STAGES
    # Each is a part of the one before; the stages are of the pipeline.
    assert caller.parent_id == ""
    for child, parent in (
        (asked, caller),
        (door, asked),
        (queue, door),
        (triton, door),
        (pipeline, triton),
        *((stage, pipeline) for stage in stages),
    ):
        assert child.parent_id == parent.span_id
        assert parent.started <= child.started <= child.ended <= parent.ended + 20_000_000
    assert [span.kind for span in (asked, door, triton, pipeline)] == [
        *(CLIENT, SERVER, CLIENT, SERVER)
    ]
    assert [span.role for span in (door, triton, pipeline, *stages)] == [
        *("door", "door", "pipeline"),
        *["pipeline"] * len(STAGES),
    ]
    assert door.attributes["backtal.code"] == "OK"
    assert (door.attributes["backtal.bundle"], door.attributes["backtal.entry"]) == (BUNDLE, "grpc")
    assert pipeline.attributes["backtal.video_seconds"] == "4.0"
    assert not any(span.is_error for span in (caller, asked, door, triton, pipeline, *stages))
    ids = {(line["event"], line["request_id"]) for line in traced.lines_of(trace_id)}
    request_id = door.attributes["backtal.request_id"]
    assert ids == {("detection", request_id), ("request", request_id)}


def test_a_header_of_http_is_the_parent(traced: Traced) -> None:
    trace_id = TRACE.replace("4", "5")
    assert post(traced, content=moving_colours(1.0), headers=traceparent(trace_id)).is_success
    door, *parts = traced.receiver.of_trace(trace_id, 8)
    assert (door.parent_id, door.attributes["backtal.entry"]) == (PARENT, "http")
    assert [span.name for span in parts] == ["queue", "triton", "pipeline", *STAGES]


def test_a_job_belongs_to_the_trace_that_asked_for_it(traced: Traced) -> None:
    trace_id = TRACE.replace("4", "6")
    accepted = post(traced, "/v1/jobs", content=moving_colours(1.0), headers=traceparent(trace_id))
    door, *parts = traced.receiver.of_trace(trace_id, 8)
    assert (door.parent_id, door.attributes["backtal.entry"]) == (PARENT, "job")
    assert door.attributes["backtal.request_id"] == accepted.json()["id"]
    assert [span.name for span in parts] == ["queue", "triton", "pipeline", *STAGES]


def test_a_trace_that_its_caller_does_not_record_is_in_the_logs_alone(traced: Traced) -> None:
    trace_id, after = TRACE.replace("4", "7"), TRACE.replace("4", "8")
    post(traced, content=moving_colours(1.0), headers=traceparent(trace_id, flags="00"))
    post(traced, content=moving_colours(1.0), headers=traceparent(after))
    traced.receiver.of_trace(after, 8)
    assert traced.receiver.of_trace(trace_id, 0) == []
    assert {line["event"] for line in traced.lines_of(trace_id)} == {"detection", "request"}


def test_a_failure_says_where_and_not_what(traced: Traced) -> None:
    trace_id = TRACE.replace("4", "9")
    damaged = moving_colours(8.0)
    response = post(traced, content=damaged[: len(damaged) // 2], headers=traceparent(trace_id))
    assert response.status_code == 400
    for span in traced.receiver.named(trace_id, "detect", "triton", "pipeline"):
        assert span.is_error
        assert span.attributes["backtal.code"] == "INVALID_ARGUMENT"


def test_a_client_cannot_name_the_pipelines_parent(traced: Traced) -> None:
    from tritonclient.grpc import InferenceServerClient, InferenceServerException

    inputs = [tensor("video", moving_colours(1.0))]
    parent = {"backtal_traceparent": traceparent(TRACE)["traceparent"]}
    with (
        InferenceServerClient(traced.service.grpc) as client,
        pytest.raises(InferenceServerException, match="backtal_traceparent"),
    ):
        client.infer(BUNDLE, inputs, parameters=parent)


def test_no_content_no_key_and_no_signature_in_any_span_or_log(traced: Traced) -> None:
    planted = {"key": "k3y-pl4nted", "signature": "s1gn4ture-pl4nted", "content": "c0ntent-pl4nted"}
    uri = f"{NOBODY}a.mp4?X-Amz-Signature={planted['signature']}"
    headers = {"authorization": f"Bearer {planted['key']}", **traceparent(TRACE)}
    content = planted["content"].encode() * 100
    for denied in (uri, uri.replace("videos", "others")):
        assert not post(traced, json={"uri": denied}, headers=headers).is_success
    assert post(traced, content=content, headers=headers).status_code == 400
    assert post(traced, content=moving_colours(1.0) + content, headers=headers).is_success
    assert post(traced, params={"nms": planted["key"]}, headers=headers).status_code == 400
    for source in ({"uri": uri}, {"video": content}):
        with (
            Client(traced.service.grpc, key=planted["key"], retries=NO_RETRIES) as client,
            pytest.raises(Exception),  # noqa: B017, PT011
        ):
            client.detect(bundle=BUNDLE, **source)
    traced.receiver.of_trace(TRACE, 3 + 3 + 4 + 8)
    folder = traced.service.log_file.parent
    written = {path.name: path.read_bytes() for path in folder.glob("*.log")}
    assert {"door.log", "triton.log"} <= set(written)
    written["metrics"] = httpx.get(f"{traced.service.http}/metrics", trust_env=False).content
    written["spans"] = b"".join(traced.receiver.bodies)
    for where, text in written.items():
        for what, value in planted.items():
            assert value.encode() not in text, f"{what} in {where}"


def test_what_is_no_endpoint_is_refused() -> None:
    from backtal.settings import parse
    from backtal_serving.settings import ServingSettings

    with pytest.raises(InvalidArgument, match="endpoint"):
        parse(ServingSettings, {"tracing": {"endpoint": "collector:4318"}}, source="test")
