"""A request from its beginning to its end: a span, a count, a line of the log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from backtal_serving.door.outcomes import OK, Counted, Entry, Outcomes
from backtal_serving.logs import log_event
from backtal_serving.tracing.context import TraceContext
from backtal_serving.tracing.tracer import Span, Tracer

SPAN_NAME = "detect"


@contextmanager
def watched(
    outcomes: Outcomes, tracer: Tracer, entry: Entry, traceparent: str | None
) -> Iterator[tuple[Counted, Span]]:
    """Watch a detection while the block runs. Exceptions pass through.

    It is logged where it got as far as an id; who was refused before is counted only, so that a
    stranger cannot fill the disk.
    """
    started = time.monotonic()
    parent = TraceContext.parse(traceparent)
    with tracer.span(SPAN_NAME, parent, kind="server", entry=entry) as span:
        counted = Counted(entry)
        try:
            with outcomes.count(counted):
                yield counted, span
        finally:
            span.tell(code=counted.code, bundle=counted.bundle, request_id=counted.request_id)
            if counted.request_id:
                log_event(
                    "detection",
                    "info" if counted.code == OK else "warning",
                    entry=entry,
                    bundle=counted.bundle,
                    request_id=counted.request_id,
                    **({} if span.context is None else {"trace_id": span.context.trace_id}),
                    outcome=counted.code,
                    seconds=round(time.monotonic() - started, 4),
                )
