"""Spans by OpenTelemetry: the extra `otel`. Imported only where traces are configured."""

from collections.abc import Mapping
from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway import __version__
from gateway.ports import Facts

_FAILED = frozenset(
    {
        "unknown",
        "temporary",
        "throttled",
        "account",
        "permanent",
        "refused",
        "gone",
        "unreachable",
    }
)


class OtelSpan:
    """A span under way."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.context = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def end(self, outcome: str) -> None:
        """It is over; an outcome that is no good marks it as an error."""
        self._span.set_attribute("otp.outcome", outcome)
        if outcome in _FAILED:
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        self._span.end()


class OtelTracer:
    """The tracer of one process. `processor` takes the spans and exports them."""

    on = True

    def __init__(self, processor: SpanProcessor) -> None:
        # The names of the environment and of the machine stay out of it: only what is said here.
        resource = Resource({SERVICE_NAME: "otp-gateway", SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gateway", __version__)

    def begin(self, name: str, parent: str, facts: Facts, *, outbound: bool = False) -> OtelSpan:
        """A span that begins now, below the traceparent `parent`."""
        kind = SpanKind.CLIENT if outbound else SpanKind.SERVER
        span = self._tracer.start_span(name, _below(parent), kind=kind, attributes=facts)
        return OtelSpan(span)

    def record(self, name: str, parent: str, facts: Facts, *, at: datetime) -> None:
        """Something that happened at that moment."""
        nanoseconds = round(at.timestamp() * 1e6) * 1000
        span = self._tracer.start_span(
            name, _below(parent), attributes=facts, start_time=nanoseconds
        )
        span.end(nanoseconds)

    def close(self) -> None:
        """Export what waits."""
        self._provider.shutdown()


def exporting(endpoint: str, headers: Mapping[str, str]) -> OtelTracer:
    """A tracer whose spans go to an OTLP/HTTP collector, in batches, from a thread of its own."""
    exporter = OTLPSpanExporter(endpoint=endpoint, headers=dict(headers), timeout=10)
    return OtelTracer(BatchSpanProcessor(exporter))


def _below(parent: str) -> Context:
    """The context of a span that runs elsewhere, or ran before."""
    _, trace_id, span_id, flags = parent.split("-")
    context = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(context), Context())
