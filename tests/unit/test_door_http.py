"""The door's forms and readers of bodies, without a server."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.errors import InvalidArgument
from backtal_serving.door.catalogue import ModelSpec, TensorSpec
from backtal_serving.door.checking import check
from backtal_serving.door.core import parse_message
from backtal_serving.door.http.formats import (
    CSV_TYPE,
    JSON_TYPE,
    VTT_TYPE,
    DetectedSegment,
    Detection,
    choose_type,
    detection_response,
)
from backtal_serving.door.http.kserve import read_request

SPEC = ModelSpec(
    name="tiny",
    versions=("1",),
    inputs={"features": TensorSpec("FP32", (2, -1)), "uri": TensorSpec("BYTES", (1,))},
    outputs={"segments": TensorSpec("FP32", (-1, 2))},
    config=None,
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON_TYPE),
        ("*/*", JSON_TYPE),
        ("text/*", CSV_TYPE),
        ("text/vtt;q=0.2, text/csv;q=0.1", VTT_TYPE),
        ("application/json;q=0, text/csv", CSV_TYPE),
    ],
)
def test_accept(accept: str, expected: str) -> None:
    assert choose_type(accept) == expected


def test_an_accept_that_nothing_fits() -> None:
    with pytest.raises(InvalidArgument, match="image/png"):
        choose_type("image/png")


def test_webvtt_is_in_time_order_and_escaped() -> None:
    segments = [
        DetectedSegment(start_seconds=3661.5, end_seconds=3662.25, label="a <b> & c", score=0.9),
        DetectedSegment(start_seconds=1.0, end_seconds=2.0, label="x\n--> y", score=0.5),
    ]
    detection = Detection(segments=segments, duration_seconds=4000.0, provenance={})
    text = bytes(detection_response(detection, VTT_TYPE).body).decode()
    assert text == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nx --&gt; y (0.500)\n\n"
        "01:01:01.500 --> 01:01:02.250\na &lt;b&gt; &amp; c (0.900)\n"
    )


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=12),
    binary=st.booleans(),
)
def test_json_and_binary_tensors_mean_the_same(values: list[float], binary: bool) -> None:
    values = values[: len(values) // 2 * 2]
    raw = np.array(values, "<f4").tobytes()
    given = {"name": "features", "datatype": "FP32", "shape": [2, len(values) // 2]}
    given |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": values}
    body = json.dumps({"inputs": [given]}).encode()
    request, _ = read_request(
        body + raw * binary, str(len(body)) if binary else None, max_json_bytes=10_000
    )
    check(request, SPEC)
    assert list(request.raw_input_contents) == [raw]


@given(st.binary(max_size=200), st.one_of(st.none(), st.text("0123456789-x", max_size=4)))
def test_any_body_is_a_request_or_the_callers_fault(body: bytes, length: str | None) -> None:
    with pytest.raises(InvalidArgument):
        read_request(body, length, max_json_bytes=10_000)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "id"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_a_request_or_the_callers_fault(document: object) -> None:
    try:
        request, _ = read_request(json.dumps(document).encode(), None, max_json_bytes=100_000)
        check(request, SPEC)
    except InvalidArgument:
        pass


@given(st.binary(max_size=120))
def test_any_message_is_a_request_or_the_callers_fault(message: bytes) -> None:
    try:
        check(parse_message(message), SPEC)
    except InvalidArgument:
        pass


@pytest.mark.parametrize("kind", ["uint64_param", None])
def test_a_parameter_that_triton_has_no_word_for(kind: str | None) -> None:
    request = parse_message(b"")
    parameter = request.parameters["nms"]
    if kind is not None:
        setattr(parameter, kind, 1)
    with pytest.raises(InvalidArgument, match=f"nms is {kind or 'empty'}"):
        check(request, SPEC)


def test_no_parameter_is_smuggled_past_the_checks() -> None:
    """A map entry with a stray field: Python's protobuf calls all of it unknown, C++ reads it."""
    entry = b"\x0a\x0dbacktal_roots" + b'\x12\x07\x1a\x05["/"]' + b"\x18\x01"
    message = b"\x0a\x04tiny" + b"\x22" + bytes([len(entry)]) + entry
    request = parse_message(message)
    assert "backtal_roots" not in request.parameters
    assert b"backtal_roots" not in request.SerializeToString()
