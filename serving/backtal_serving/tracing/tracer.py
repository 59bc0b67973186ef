"""What spans are made of here, and the tracer that makes none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from backtal.errors import MissingDependency
from backtal.run_control import StageTime
from backtal.settings import Settings
from backtal_serving.tracing.context import TraceContext

Kind = Literal["server", "client", "internal"]
Attribute = str | int | float | bool


class TracingSettings(Settings):
    """Where spans go.

    endpoint: of OTLP over HTTP, with its path. What is secret (OTEL_EXPORTER_OTLP_HEADERS) and how
    spans are gathered (OTEL_BSP_*) comes from OpenTelemetry's own variables.
    """

    endpoint: str = Field(pattern=r"^https?://", examples=["http://collector:4318/v1/traces"])
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="of the traces that begin here; a caller's own decide"
    )


class Span:
    """A part of a request that nobody records. context: what is handed on to its own parts."""

    def __init__(self, context: TraceContext | None = None) -> None:
        self.context = context

    def tell(self, **attributes: Attribute) -> None:
        """Add to what is known of it."""


class Tracer:
    """Makes no spans, and hands a caller's context on as it is."""

    @contextmanager
    def span(
        self,
        name: str,  # noqa: ARG002
        parent: TraceContext | None,
        *,
        kind: Kind = "internal",  # noqa: ARG002
        **attributes: Attribute,  # noqa: ARG002
    ) -> Iterator[Span]:
        """A span for as long as the block runs; an error that leaves it is the span's."""
        yield Span(parent)

    def record(
        self, name: str, parent: TraceContext | None, spent: StageTime, **attributes: Attribute
    ) -> None:
        """A span of what has been."""

    def close(self) -> None:
        """Send what has not been sent."""


def make_tracer(settings: TracingSettings | None, role: str) -> Tracer:
    """The tracer of these settings; `role` is the process: door, pipeline. MissingDependency."""
    if settings is None:
        return Tracer()
    try:
        from backtal_serving.tracing.otlp import OtlpTracer
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"tracing needs {error.name}, which is not installed: pip install 'backtal[tracing]'"
        ) from None
    return OtlpTracer(settings, role)
