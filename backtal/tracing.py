"""A client's spans, for callers whose program uses OpenTelemetry. Others pay nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SPAN_NAME = "detect"


@contextmanager
def traced_call(address: str, headers: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A span of the caller's own tracing around one call; `headers`, which tell the server of it.

    Where the program has not imported OpenTelemetry, there is no span and no further header. The
    span is not made current: a stream hands control back to its caller half way.
    """
    told = dict(headers)
    if "opentelemetry" not in sys.modules:
        yield told
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = trace.get_tracer("backtal")
    attributes = {"server.address": address}
    span = tracer.start_span(SPAN_NAME, kind=trace.SpanKind.CLIENT, attributes=attributes)
    TraceContextTextMapPropagator().inject(told, trace.set_span_in_context(span))
    try:
        yield told
    except BaseException:
        # Not what it says: a message may name the address of a video, signature and all.
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()
