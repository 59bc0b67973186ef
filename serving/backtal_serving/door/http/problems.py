"""Errors as RFC 9457 problem details, with the codes of gRPC."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from backtal.errors import BacktalError, InvalidArgument, NotFound
from backtal_serving.door.http.bodies import linger
from backtal_serving.door.http.entry import count_refused
from backtal_serving.door.outcomes import Outcomes
from backtal_serving.door.refusals import field_of, retry_after_header, told

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:backtal:error:"


class Problem(BaseModel):
    """What went wrong: RFC 9457, with the gRPC code and, where there is one, when to retry."""

    type: str = Field(examples=["urn:backtal:error:INVALID_ARGUMENT"])
    title: str = Field(examples=["Invalid argument"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["nms is 2.0, allowed is a tIoU in (0, 1]"])
    code: str = Field(examples=["INVALID_ARGUMENT"])
    reason: str = Field(examples=["LIMIT_EXCEEDED"], description="the kind of error, of its code")
    field: str | None = Field(None, examples=["nms"])
    retry_after_seconds: float | None = None
    error: str = Field(description="the same as detail, where KServe's clients look for it")


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": Problem,
        "description": "The request is refused.",
        "content": {MEDIA_TYPE: {}},
    },
    "5XX": {"model": Problem, "description": "No answer this time.", "content": {MEDIA_TYPE: {}}},
}


def problem_response(
    error: BacktalError, *, close: bool, status: int | None = None
) -> JSONResponse:
    """The response to a refusal; `close` the connection where a body may be left unread."""
    title = error.grpc_code.replace("_", " ").capitalize()
    problem = Problem(
        type=TYPE_PREFIX + error.grpc_code,
        title=title,
        status=status or error.http_status,
        detail=error.message,
        code=error.grpc_code,
        reason=error.reason,
        field=field_of(error),
        retry_after_seconds=error.retry_after_seconds,
        error=error.message,
    )
    headers = retry_after_header(error)
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="backtal"'
    if close:
        headers["connection"] = "close"
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def add_handlers(app: FastAPI, outcomes: Outcomes) -> None:
    """Have every error of `app` answered as a problem."""

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        await linger(request)
        return problem_response(told(error), close=_has_body(request))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        await linger(request)
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
        given = repr(problem.get("input"))[:80]
        refusal = InvalidArgument(f"{name} is {given}: {problem['msg']}")
        count_refused(outcomes, request, refusal)
        return problem_response(refusal, close=_has_body(request))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        await linger(request)
        what = f"{request.method} {request.url.path[:200]}"
        if error.status_code == HTTPStatus.NOT_FOUND:
            refusal: BacktalError = NotFound(f"there is no {what}")
        else:
            refusal = InvalidArgument(f"{what}: {error.detail}")
        response = problem_response(refusal, close=_has_body(request), status=error.status_code)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(BacktalError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_error)


def _has_body(request: Request) -> bool:
    return request.method in ("POST", "PUT", "PATCH")
