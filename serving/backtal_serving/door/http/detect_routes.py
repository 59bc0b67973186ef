"""`/v1`: a detection in one request, for people and scripts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from tritonclient.grpc import service_pb2

from backtal.client import DEFAULT_BUNDLE, DetectionOptions
from backtal.errors import BacktalError, InvalidArgument
from backtal_serving.door.core import Asked, Door
from backtal_serving.door.http.bodies import (
    JSON_TYPE,
    MULTIPART_TYPE,
    media_type,
    parse_json,
    unless_disconnected,
    video_chunks,
    whole_body,
)
from backtal_serving.door.http.entry import detection, other
from backtal_serving.door.http.formats import (
    ALWAYS,
    INCLUDED,
    TYPES,
    Detection,
    Include,
    choose_type,
    detection_of,
    detection_response,
    tensors_of,
)
from backtal_serving.door.http.problems import RESPONSES
from backtal_serving.door.spool import SpooledFile

MAX_URI_BODY_BYTES = 64 * 1024


class DetectQuery(BaseModel):
    """What a caller may choose; the rest is left to the bundle."""

    model_config = ConfigDict(extra="forbid")

    bundle: str | None = Field(None, max_length=256, description="the only one, else kinetics400")
    version: str | None = Field(
        None, max_length=20, description="of the bundle; the newest that is served"
    )
    score_threshold: float | None = Field(None, description="the lowest score of a segment")
    max_segments: int | None = Field(None, ge=1, le=1_000_000, description="at most so many")
    classes: list[str] = Field([], description="only these; give it several times")
    nms: float | None = Field(None, gt=0, le=1, description="a tIoU: what overlaps more is one")
    allow_partial: bool = Field(False, description="answer for a damaged file's part")
    include: list[Include] = Field([], description="more than the segments")
    timeout_seconds: float | None = Field(None, gt=0, le=86_400)

    def parameters(self) -> dict[str, Any]:
        """The request parameters of the wire."""
        return DetectionOptions(
            score_threshold=self.score_threshold,
            max_segments=self.max_segments,
            classes=tuple(self.classes),
            nms=self.nms,
            allow_partial=self.allow_partial,
        ).as_parameters()


class UriBody(BaseModel):
    """A video by its name."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(max_length=4096, examples=["file:///videos/my.mp4"])


class Bundle(BaseModel):
    """A bundle that answers."""

    name: str = Field(examples=["kinetics400"])
    versions: list[str] = Field(description="rising; the last one answers who names none")
    hashes: dict[str, str] = Field(
        {}, description="of each version: bundle_sha256 of its answers' provenance"
    )
    feature_dim: int = Field(
        description="D of features that it takes in place of a video; -1 where versions differ"
    )


class Bundles(BaseModel):
    """The bundles that this caller may use."""

    models: list[Bundle]


UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {"video": {"type": "string", "format": "binary"}},
                    "required": ["video"],
                }
            },
            "video/mp4": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            JSON_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {"uri": {"type": "string", "maxLength": 4096}},
                    "required": ["uri"],
                    "additionalProperties": False,
                },
                "example": {"uri": "file:///videos/my.mp4"},
            },
        },
    }
}
DETECTION_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Detection,
        "description": "The actions, none where there is no action.",
        "content": {kind: {} for kind in TYPES[1:]},
    },
    **RESPONSES,
}


def router(door: Door) -> APIRouter:
    """The routes of `/v1` that answer at once."""
    routes = APIRouter(prefix="/v1", tags=["detection"], responses=RESPONSES)

    @routes.get("/models", summary="The bundles that you may use")
    async def models(request: Request) -> Bundles:
        with other(door, request) as asked:
            return Bundles(models=_bundles(door, asked))

    @routes.post(
        "/detect",
        summary="The actions of one video",
        description="Upload a file, send its bytes as the body, or name it by a uri.",
        openapi_extra=UPLOAD_BODY,
        responses=DETECTION_RESPONSES,
        response_class=Response,
    )
    async def detect(request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        with detection(door, request) as asked:
            return await _detect(door, asked, request, query)

    return routes


async def _detect(door: Door, asked: Asked, request: Request, query: DetectQuery) -> Response:
    kind = choose_type(request.headers.get("accept", ""))
    name = bundle_of(door, asked, query)
    door.check_room(asked)
    seconds = query.timeout_seconds or door.settings.requests.max_seconds
    async with source_of(door, request) as (uri, spooled):
        message = detection_request(name, query, uri)
        async with door.prepare(asked, message, spooled) as prepared:
            answer = await unless_disconnected(request, door.infer(prepared, seconds))
    response = service_pb2.ModelInferResponse.FromString(answer)
    return detection_response(detection_of(tensors_of(response)), kind)


def bundle_of(door: Door, asked: Asked, query: DetectQuery) -> str:
    """The bundle that is asked for, checked. Raises InvalidArgument, NotFound, PermissionDenied."""
    names = [bundle.name for bundle in _bundles(door, asked)]
    name = query.bundle or (names[0] if len(names) == 1 else DEFAULT_BUNDLE)
    if query.bundle is None and name not in names:
        raise InvalidArgument(f"bundle is not given, there are {', '.join(names) or 'none'}")
    spec = door.model(asked, name, query.version or "")
    if spec.name != spec.bundle:
        raise InvalidArgument(f"bundle is {name!r}, a stream: allowed is {spec.bundle!r}")
    return name


@asynccontextmanager
async def source_of(
    door: Door, request: Request
) -> AsyncIterator[tuple[str | None, SpooledFile | None]]:
    """The uri of a JSON body, else the video, which lies in the spool while the block runs."""
    limits = door.settings.limits
    if media_type(request) == JSON_TYPE:
        body = await whole_body(request, limits, MAX_URI_BODY_BYTES)
        yield _uri(parse_json(body, "the body")), None
        return
    async with door.spool.write(video_chunks(request, limits), "video") as spooled:
        yield None, spooled


def detection_request(name: str, query: DetectQuery, uri: str | None) -> Any:
    """The ModelInferRequest of a query; its video is added by `Door.prepare`."""
    request = service_pb2.ModelInferRequest(model_name=name, model_version=query.version or "")
    for key, value in query.parameters().items():
        # bool is an int to Python.
        kind = {bool: "bool_param", int: "int64_param", float: "double_param"}.get(type(value))
        setattr(request.parameters[key], kind or "string_param", value)
    for output in (*ALWAYS, *(name for kind in query.include for name in INCLUDED[kind])):
        if output not in {known.name for known in request.outputs}:
            request.outputs.add(name=output)
    if uri is not None:
        request.inputs.add(name="uri", datatype="BYTES", shape=[1])
        raw = uri.encode()
        request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
    return request


def _uri(document: Any) -> str:
    if not isinstance(document, dict) or set(document) != {"uri"}:
        given = json.dumps(document)[:80]
        raise InvalidArgument(f'the body is {given}, expected {{"uri": "..."}}')
    uri = document["uri"]
    if not isinstance(uri, str) or not 0 < len(uri) <= 4096:
        raise InvalidArgument(f"uri is {uri!r:.80}, expected a text of 1 to 4096 characters")
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"uri is {uri!r:.80}, which is no Unicode text") from None
    return uri


def _bundles(door: Door, asked: Asked) -> list[Bundle]:
    found = []
    for name in door.catalogue.bundles():
        spec = door.catalogue.models[name]
        try:
            asked.caller.check_model(name)
        except BacktalError:
            continue
        dim = spec.inputs["features"].shape[0]
        found.append(
            Bundle(
                name=name,
                versions=list(spec.versions),
                hashes=dict(spec.hashes),
                feature_dim=dim,
            )
        )
    return found
