"""The header of a trace, and what the client tells of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from backtal.errors import MissingDependency
from backtal_serving.door.core import parse_message, trace_field
from backtal_serving.handover import TRACE_PARAMETER, take
from backtal_serving.tracing.context import TraceContext
from backtal_serving.tracing.tracer import Tracer, TracingSettings, make_tracer

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def identifiers(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


@given(st.builds(TraceContext, identifiers(32), identifiers(16), st.booleans()))
def test_what_is_written_is_read(context: TraceContext) -> None:
    assert TraceContext.parse(str(context)) == context


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "00", HEADER.upper(), f" {HEADER}", f"{HEADER}-more", HEADER[:-1]),
        *(HEADER.replace("00-", "ff-", 1), re.sub("4bf9.{28}", "0" * 32, HEADER)),
        HEADER.replace("00f067aa0ba902b7", "0" * 16),
    ],
)
def test_what_is_no_header_is_ignored(text: str | None) -> None:
    assert TraceContext.parse(text) is None


def test_a_later_version_may_say_more() -> None:
    later = HEADER.replace("00-", "01-", 1) + "-more"
    assert TraceContext.parse(later) == TraceContext.parse(HEADER)


def test_the_trace_is_put_behind_a_message_as_one_more_parameter() -> None:
    request = service_pb2.ModelInferRequest(model_name="tiny", id="7")
    request.parameters["nms"].double_param = 0.5
    request.raw_input_contents.append(b"x" * 1000)
    context = TraceContext.parse(HEADER)
    both = parse_message(request.SerializeToString() + trace_field(context))
    assert both.parameters[TRACE_PARAMETER].string_param == HEADER
    del both.parameters[TRACE_PARAMETER]
    assert both == request
    assert trace_field(None) == b""


def test_the_pipeline_takes_the_trace_from_a_door_only() -> None:
    handed, rest = take({TRACE_PARAMETER: HEADER, "nms": 0.5}, Path("/spool"))
    assert (handed.trace, rest) == (TraceContext.parse(HEADER), {"nms": 0.5})
    handed, rest = take({TRACE_PARAMETER: HEADER}, None)
    assert (handed.trace, rest) == (None, {TRACE_PARAMETER: HEADER})


def test_without_a_collector_a_span_is_its_parent() -> None:
    parent = TraceContext.parse(HEADER)
    tracer = make_tracer(None, "door")
    assert type(tracer) is Tracer
    with tracer.span("x", parent) as span:
        assert span.context is parent


def test_a_program_without_opentelemetry_loads_none_of_it() -> None:
    code = (
        "import sys\n"
        "from backtal.tracing import traced_call\n"
        "import backtal_serving.door.core, backtal_serving.supervisor\n"
        "with traced_call('x', {'a': 'b'}) as headers:\n"
        "    assert headers == {'a': 'b'}\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_collector_that_is_not_there_holds_nothing_up() -> None:
    tracer = make_tracer(TracingSettings(endpoint="http://127.0.0.1:9/v1/traces"), "door")
    with tracer.span("detect", None, kind="server", bundle="tiny") as span:
        assert span.context is not None
    started = time.monotonic()
    tracer.close()
    assert time.monotonic() - started < 10.0


def test_the_libraries_log_lines_of_json() -> None:
    code = (
        "import logging\n"
        "from backtal_serving.logs import log_as_json\n"
        "log_as_json(logging.WARNING)\n"
        "logging.getLogger('lib').info('not told')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n"
        "    logging.getLogger('lib').exception('a %s', 'word')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    (line,) = answer.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["logger"]) == ("log", "error", "lib")
    assert told["message"] == "a word"
    assert "ZeroDivisionError" in told["traceback"]


def test_tracing_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backtal_serving.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(MissingDependency, match=r"backtal\[tracing\]"):
        make_tracer(settings, "door")
