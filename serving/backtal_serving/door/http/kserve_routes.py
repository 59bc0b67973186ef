"""`/v2`: KServe's open inference protocol, for tritonclient.http and its like."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from backtal_serving.door.core import Asked, Door
from backtal_serving.door.grpc_service import SERVER_NAME, metadata
from backtal_serving.door.http.bodies import check_encoding, unless_disconnected, whole_body
from backtal_serving.door.http.entry import detection, other
from backtal_serving.door.http.kserve import HEADER_LENGTH, read_request, write_response
from backtal_serving.door.http.problems import RESPONSES

OCTETS = "application/octet-stream"
INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "inputs": [
                        {
                            "name": "uri",
                            "shape": [1],
                            "datatype": "BYTES",
                            "data": ["file:///videos/my.mp4"],
                        }
                    ],
                    "outputs": [{"name": "segments"}, {"name": "labels"}, {"name": "scores"}],
                },
            },
            OCTETS: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def router(door: Door) -> APIRouter:
    """The routes of `/v2` for one door."""
    routes = APIRouter(prefix="/v2", tags=["KServe v2"], responses=RESPONSES)

    @routes.get("", summary="What serves here")
    async def server() -> dict[str, Any]:
        return {"name": SERVER_NAME, "version": "2", "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live", summary="Whether the door runs")
    async def live() -> Response:
        return Response()

    @routes.get("/health/ready", summary="Whether there is a bundle that answers")
    async def ready() -> Response:
        return Response(status_code=200 if door.catalogue.is_ready else 503)

    @routes.get("/models/{name}/ready", summary="Whether a model answers")
    @routes.get("/models/{name}/versions/{version}/ready", summary="Whether a model answers")
    async def model_ready(name: str, version: str = "") -> Response:
        spec = door.catalogue.models.get(name)
        known = spec is not None and version in ("", *spec.versions) and door.catalogue.is_ready
        return Response(status_code=200 if known else 404)

    @routes.get("/models/{name}", summary="A model's tensors")
    @routes.get("/models/{name}/versions/{version}", summary="A model's tensors")
    async def model(request: Request, name: str, version: str = "") -> dict[str, Any]:
        with other(door, request) as asked:
            return _as_dict(metadata(door.model(asked, name, version)))

    @routes.get("/models/{name}/config", summary="A model's configuration, as Triton has it")
    async def config(request: Request, name: str) -> dict[str, Any]:
        with other(door, request) as asked:
            return _as_dict(door.model(asked, name).config)

    @routes.post("/models/{name}/infer", summary="One request", openapi_extra=INFER_BODY)
    @routes.post(
        "/models/{name}/versions/{version}/infer", summary="One request", openapi_extra=INFER_BODY
    )
    async def infer(request: Request, name: str, version: str = "") -> Response:
        with detection(door, request) as asked:
            return await _infer(door, asked, request, name, version)

    return routes


async def _infer(door: Door, asked: Asked, request: Request, name: str, version: str) -> Response:
    limits = door.settings.limits
    # Known from the path, so that a body for nobody is not read.
    door.model(asked, name, version)
    check_encoding(request)
    door.check_room(asked)
    async with AsyncExitStack() as stack:
        async with door.reading.turn(asked.caller.name):
            body = await whole_body(request, limits, limits.max_message_bytes)
            message, binary_outputs = read_request(
                body,
                request.headers.get(HEADER_LENGTH),
                max_json_bytes=limits.max_json_bytes,
            )
            del body
            message.model_name, message.model_version = name, version
            prepared = await stack.enter_async_context(door.prepare(asked, message))
            del message
        answer = await unless_disconnected(
            request, door.infer(prepared, door.settings.requests.max_seconds)
        )
    response = service_pb2.ModelInferResponse.FromString(answer)
    parts, json_length = write_response(response, binary_outputs)
    if json_length is None:
        return Response(parts[0], media_type="application/json")
    return Response(b"".join(parts), media_type=OCTETS, headers={HEADER_LENGTH: str(json_length)})


def _as_dict(message: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    # protobuf writes 64-bit numbers as text; KServe's clients expect numbers.
    for tensor in (*plain.get("inputs", ()), *plain.get("outputs", ())):
        tensor["shape"] = [int(size) for size in tensor["shape"]]
    return plain
