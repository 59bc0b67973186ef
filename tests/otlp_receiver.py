"""A collector of OpenTelemetry on loopback: spans as they come, by OTLP over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_SECONDS = 30.0
SERVER, CLIENT = 2, 3


@dataclass(frozen=True)
class ReceivedSpan:
    """One span: identifiers in hexadecimal, times in nanoseconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    started: int
    ended: int
    kind: int
    is_error: bool
    role: str
    attributes: dict[str, str]


@dataclass
class Receiver:
    """What was received. endpoint: for the senders. bodies: as they came."""

    endpoint: str = ""
    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def of_trace(self, trace_id: str, number: int) -> list[ReceivedSpan]:
        """The spans of a trace by their beginnings, once so many of them are there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := [span for span in self.spans if span.trace_id == trace_id]) < number:
            names = [span.name for span in found]
            assert time.monotonic() < deadline, f"{names}, expected {number} spans"
            time.sleep(0.05)
        return sorted(found, key=lambda span: span.started)

    def named(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """The spans of a trace with these names, however many others are there."""
        number = len(names)
        while True:
            found = {span.name: span for span in self.of_trace(trace_id, number)}
            if found.keys() >= set(names):
                return [found[name] for name in names]
            # Door and pipeline send theirs at times of their own.
            number += 1


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """A collector while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.bodies.append(body)
            receiver.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the tests' screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource in request.resource_spans:
        about = _plain(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    started=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    kind=span.kind,
                    is_error=span.status.code == 2,
                    role=about.get("backtal.role", ""),
                    attributes=_plain(span.attributes),
                )


def _plain(attributes: object) -> dict[str, str]:
    kinds = ("string_value", "int_value", "double_value", "bool_value")
    return {
        one.key: next(str(getattr(one.value, kind)) for kind in kinds if one.value.HasField(kind))
        for one in attributes  # type: ignore[attr-defined]
    }
