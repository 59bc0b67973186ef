"""Unmodified clients of KServe's gRPC through the front door."""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from tests.integration.conftest import outputs, tensor
from tests.integration.door.conftest import Fronted
from tests.integration.tiny_repository import BUNDLE, CLASSES
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

NAMES = ("segments", "scores", "labels")


@pytest.fixture
def client(fronted: Fronted) -> Iterator[Any]:
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(fronted.grpc) as connected:
        yield connected


def refusal(call: Any) -> tuple[str, str]:
    """The code and the text that a call of tritonclient is refused with."""
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_a_video_is_answered_as_triton_answers_it(
    client: Any, fronted: Fronted, video: bytes
) -> None:
    from tritonclient.grpc import InferenceServerClient

    # Beyond the size from which a video goes by the spool.
    for given in (video, video + bytes(300_000)):
        inputs = [tensor("video", given)]
        ours = client.infer(BUNDLE, inputs, outputs=outputs(*NAMES))
        with InferenceServerClient(fronted.triton.grpc_address) as direct:
            theirs = direct.infer(BUNDLE, inputs, outputs=outputs(*NAMES))
        assert len(ours.as_numpy("scores")) > 0
        for name in NAMES:
            np.testing.assert_array_equal(ours.as_numpy(name), theirs.as_numpy(name))
    assert fronted.spooled() == []


def test_what_a_client_asks_first(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(BUNDLE)
    metadata = client.get_model_metadata(BUNDLE)
    assert [tensor.name for tensor in metadata.inputs][:3] == ["video", "uri", "features"]
    assert client.get_model_config(BUNDLE).config.name == BUNDLE
    index = client.get_model_repository_index()
    assert {model.name for model in index.models} == {BUNDLE, f"{BUNDLE}_stream"}


def test_inner_models_do_not_exist(
    client: Any, tiny_repository: Any, feature_inputs: list[Any]
) -> None:
    inner = tiny_repository[1].cas.model
    assert not client.is_model_ready(inner)
    assert refusal(lambda: client.infer(inner, feature_inputs))[0] == "NOT_FOUND"
    assert refusal(lambda: client.get_model_metadata(inner))[0] == "NOT_FOUND"
    assert refusal(lambda: client.get_model_config(inner))[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("load_model", (BUNDLE,)),
        ("unload_model", (BUNDLE,)),
        ("register_system_shared_memory", ("x", "/x", 8)),
        ("get_system_shared_memory_status", ()),
        ("get_trace_settings", ()),
        ("get_log_settings", ()),
        ("get_inference_statistics", ()),
    ],
)
def test_control_does_not_exist(client: Any, call: str, arguments: tuple[Any, ...]) -> None:
    assert refusal(lambda: getattr(client, call)(*arguments))[0] == "UNIMPLEMENTED"


def test_a_load_request_with_a_file_is_not_implemented(client: Any) -> None:
    files = {"file:1/model.py": b"raise SystemExit"}
    config = '{"backend": "python"}'
    call = refusal(lambda: client.load_model(BUNDLE, config=config, files=files))
    assert call[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 1},
        {"timeout": 5},
        {"sequence_id": 7, "sequence_start": True},
        {"parameters": {"backtal_spooled": "0" * 32}},
        {"parameters": {"backtal_roots": '["/"]'}},
        {"parameters": {"nsm": 0.5}},
        {"model_version": "7"},
    ],
)
def test_what_strangers_may_not_set(
    client: Any, feature_inputs: list[Any], options: dict[str, Any]
) -> None:
    code, text = refusal(lambda: client.infer(BUNDLE, feature_inputs, **options))
    assert code == ("NOT_FOUND" if "model_version" in options else "INVALID_ARGUMENT")
    assert next(iter(options.get("parameters", options))).partition("_")[0] in text


def test_shared_memory_is_refused(client: Any) -> None:
    from tritonclient.grpc import InferInput

    shared = InferInput("features", [8, 30], "FP32")
    shared.set_shared_memory("region", 960)
    code, text = refusal(lambda: client.infer(BUNDLE, [shared]))
    assert (code, "shared_memory" in text) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("features", np.zeros((9, 30), np.float32), r"features is FP32 \[9, 30\]"),
        ("features", np.zeros((8, 30), np.float64), "features is FP64"),
        ("features", np.zeros(8, np.float32), r"expected FP32 \[8, -1\]"),
        ("pixels", np.zeros(8, np.float32), "no input 'pixels'"),
        ("video", np.array([b"a", b"b"], np.object_), r"video is BYTES \[2\]"),
    ],
)
def test_wrong_tensors_are_the_callers_fault(client: Any, name: str, value: Any, says: str) -> None:
    code, text = refusal(lambda: client.infer(BUNDLE, [tensor(name, value)]))
    assert code == "INVALID_ARGUMENT"
    assert re.search(says, text)


def test_a_spooled_video_is_called_video_in_errors(client: Any, fronted: Fronted) -> None:
    code, text = refusal(lambda: client.infer(BUNDLE, [tensor("video", bytes(400_000))]))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("video")
    assert str(fronted.folder) not in text


def test_a_message_that_is_too_large(client: Any) -> None:
    code, text = refusal(lambda: client.infer(BUNDLE, [tensor("video", bytes(65 << 20))]))
    assert code == "RESOURCE_EXHAUSTED"
    assert str(64 << 20) in text


def test_a_deadline_and_a_cancel_end_the_work(client: Any, fronted: Fronted) -> None:
    long_video = [tensor("video", moving_colours(120.0))]
    assert refusal(lambda: client.infer(BUNDLE, long_video, client_timeout=0.3))[0] == (
        "DEADLINE_EXCEEDED"
    )
    arrived: queue.Queue[Any] = queue.Queue()
    call = client.async_infer(BUNDLE, long_video, lambda result, error: arrived.put(error))
    time.sleep(0.3)
    call.cancel()
    assert "CANCELLED" in str(arrived.get(timeout=10.0))
    # Both have left the two places of the model: the next is not kept waiting.
    started = time.monotonic()
    client.infer(BUNDLE, [tensor("video", moving_colours(2.0))])
    assert time.monotonic() - started < 5.0
    assert fronted.spooled() == []


def test_details_say_which_field_was_wrong(fronted: Fronted, feature_inputs: list[Any]) -> None:
    from google.rpc import error_details_pb2, status_pb2
    from tritonclient.grpc import service_pb2_grpc
    from tritonclient.grpc._utils import _get_inference_request

    request = _get_inference_request(
        BUNDLE, feature_inputs, "", "", None, 0, False, False, 0, None, parameters={"nms": 2.0}
    )
    with grpc.insecure_channel(fronted.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field == "nms"


def test_a_stream_sends_progress_and_the_answer(client: Any, video: bytes) -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: arrived.put(error or result))
    try:
        for _ in range(2):
            inputs = [tensor("video", video)]
            client.async_stream_infer(
                f"{BUNDLE}_stream", inputs, outputs=outputs("progress", *NAMES)
            )
            num_progress = 0
            while (result := arrived.get(timeout=60.0)).as_numpy("segments") is None:
                num_progress += 1
            assert num_progress > 0
            assert {label.decode() for label in result.as_numpy("labels")} <= set(CLASSES)
        client.async_stream_infer(f"{BUNDLE}_stream", [tensor("uri", "ftp://x")])
        assert str(arrived.get(timeout=60.0)).startswith("[INVALID_ARGUMENT] uri")
    finally:
        client.stop_stream()


def test_the_asyncio_client(fronted: Fronted, feature_inputs: list[Any]) -> None:
    from tritonclient.grpc.aio import InferenceServerClient

    async def ask() -> int:
        async with InferenceServerClient(fronted.grpc) as client:
            answers = await asyncio.gather(
                *(client.infer(BUNDLE, feature_inputs, outputs=outputs(*NAMES)) for _ in range(8))
            )
            return min(len(answer.as_numpy("scores")) for answer in answers)

    assert asyncio.run(ask()) > 0


def test_health_and_reflection_lead_to_a_detection(
    fronted: Fronted, feature_inputs: list[Any]
) -> None:
    """As grpcurl does it: everything it knows of the service comes from the service."""
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with grpc.insecure_channel(fronted.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        pool = DescriptorPool(database)
        request_type = GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))
        answer_type = GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferResponse"))
        request = request_type(model_name=BUNDLE)
        for infer_input in feature_inputs:
            given = request.inputs.add()
            given.ParseFromString(infer_input._get_tensor().SerializeToString())
            request.raw_input_contents.append(infer_input._get_content())
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=request_type.SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        assert "segments" in [output.name for output in infer(request).outputs]


def test_a_reader_that_stops_holds_nobody_up(
    client: Any, fronted: Fronted, feature_inputs: list[Any], video: bytes
) -> None:
    """Callers that open a stream and read nothing of it, as many as the model has places."""
    from tritonclient.grpc import service_pb2
    from tritonclient.grpc._utils import _get_inference_request

    request = _get_inference_request(
        f"{BUNDLE}_stream", [tensor("video", video)], "", "", None, 0, False, False, 0, None, None
    )
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    done = threading.Event()
    with grpc.insecure_channel(fronted.grpc) as channel:
        stream = channel.stream_stream(
            path, request_serializer=service_pb2.ModelInferRequest.SerializeToString
        )

        def requests() -> Iterator[Any]:
            yield request
            done.wait(30.0)

        calls = [stream(requests()) for _ in range(4)]
        try:
            for _ in range(5):
                answer = client.infer(BUNDLE, feature_inputs, client_timeout=20.0)
                assert answer.as_numpy("duration") is not None
        finally:
            done.set()
            for call in calls:
                call.cancel()
