"""Spans by OpenTelemetry, sent by OTLP over HTTP from a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from backtal.errors import BacktalError
from backtal.run_control import StageTime
from backtal_serving.tracing.context import TraceContext
from backtal_serving.tracing.tracer import Attribute, Kind, Span, Tracer, TracingSettings

# A collector that is not there must not hold up a stop.
EXPORT_SECONDS = 2
_KINDS = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
_PREFIX = "backtal."


class OtlpTracer(Tracer):
    """Makes spans and sends them; where the collector does not take them, they are dropped."""

    def __init__(self, settings: TracingSettings, role: str) -> None:
        about = {"service.name": "backtal", "service.version": version("backtal")}
        self._provider = TracerProvider(
            resource=Resource.create({**about, _PREFIX + "role": role}),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            # Its own handler would close before the last requests have ended.
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("backtal", version("backtal"))

    @contextmanager
    def span(
        self,
        name: str,
        parent: TraceContext | None,
        *,
        kind: Kind = "internal",
        **attributes: Attribute,
    ) -> Iterator[Span]:
        """A span for as long as the block runs; an error that leaves it is the span's."""
        made = self._tracer.start_span(
            name, _context_of(parent), kind=_KINDS[kind], attributes=_named(attributes)
        )
        span = _OtlpSpan(made)
        try:
            yield span
        except BaseException as error:
            # Not what it says: a message may name the address of a video, signature and all.
            made.set_status(trace.StatusCode.ERROR)
            if isinstance(error, BacktalError):
                span.tell(code=error.grpc_code)
            raise
        finally:
            made.end()

    def record(
        self, name: str, parent: TraceContext | None, spent: StageTime, **attributes: Attribute
    ) -> None:
        """A span of what has been."""
        since_epoch = time.time() - time.monotonic()
        made = self._tracer.start_span(
            name,
            _context_of(parent),
            attributes=_named({**attributes, "busy_seconds": spent.seconds}),
            start_time=_nanoseconds(since_epoch + spent.started),
        )
        made.end(_nanoseconds(since_epoch + spent.ended))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class _OtlpSpan(Span):
    def __init__(self, made: trace.Span) -> None:
        about = made.get_span_context()
        super().__init__(
            TraceContext(
                trace.format_trace_id(about.trace_id),
                trace.format_span_id(about.span_id),
                about.trace_flags.sampled,
            )
        )
        self._made = made

    def tell(self, **attributes: Attribute) -> None:
        self._made.set_attributes(_named(attributes))


def _context_of(parent: TraceContext | None) -> Context:
    if parent is None:
        return Context()
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.is_sampled else 0)
    about = trace.SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(about), Context())


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {_PREFIX + name: value for name, value in attributes.items()}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
