"""Tracing with OpenTelemetry, as its environment variables say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER ..).

Imported only with TRACING=true, by every process once. A tracer provider that was set before is used as it is: by
`opentelemetry-instrument`, or by an app of yours.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from project.telemetry import tracing

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImproperlyConfigured(
        f"TRACING=true needs OpenTelemetry, and {missing.name} is not installed: "
        "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http, or leave TRACING out."
    ) from None

SYSTEM = {"messaging.system": "ordered_work"}
PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
W3C = TraceContextTextMapPropagator()


def start() -> None:
    """Trace from now on. Raises ImproperlyConfigured when the exporter that the environment names is not there."""
    if tracing.tracer is None:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(provider())
        tracing.tracer = Spans()


def provider() -> TracerProvider:
    """What the environment asks for: sampler, limits and resource are read by the SDK, the exporters here."""
    os.environ.setdefault("OTEL_SERVICE_NAME", "ordered-work")
    made = TracerProvider()
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() not in ("", "none"):
            made.add_span_processor(BatchSpanProcessor(exporter(name.strip())()))
    return made


def exporter(name: str) -> type[SpanExporter]:
    """By the name that OTEL_TRACES_EXPORTER has for it. Raises ImproperlyConfigured."""
    if name == "otlp":
        general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        asked = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
        name = PROTOCOLS.get(asked, asked)
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        loaded: type[SpanExporter] = found.load()
        return loaded
    raise ImproperlyConfigured(
        f"TRACING=true: there is no exporter {name!r}. Install its package "
        "(opentelemetry-exporter-otlp-proto-http for otlp), or set OTEL_TRACES_EXPORTER: otlp, console or none."
    )


class Spans:
    """The `Tracer` of project/telemetry/tracing.py. Names and attributes follow the messaging conventions."""

    def __init__(self) -> None:
        self.tracer = trace.get_tracer("ordered_work")

    @contextmanager
    def caller(self, headers: Mapping[str, str]) -> Iterator[None]:
        if trace.get_current_span().get_span_context().is_valid:  # the server's own instrumentation was first
            yield
            return
        token = context.attach(_named_by(headers))
        try:
            yield
        finally:
            context.detach(token)

    @contextmanager
    def submit(
        self, kind: str, request_id: UUID | None, count: int, headers: Mapping[str, str] | None = None
    ) -> Iterator[str]:
        one = {"messaging.message.id": str(request_id)} if request_id else {"messaging.batch.message_count": count}
        # Not the thread's current span meanwhile: on an event loop others have their turn before it ends.
        span = self.tracer.start_span(
            f"submit {kind}",
            None if headers is None else _named_by(headers),
            SpanKind.PRODUCER,
            {**_of("send", "submit", kind), **one},
        )
        carrier: dict[str, str] = {}
        W3C.inject(carrier, trace.set_span_in_context(span))
        try:
            yield carrier.get("traceparent", "")
        except tracing.LeftToOthers:
            return  # a span that is not ended is never sent
        except BaseException as error:
            _failed(span, type(error).__name__)
            span.end()
            raise
        span.end()

    @contextmanager
    def attempt(
        self, kind: str, traceparent: str | None, attributes: Mapping[str, str | int]
    ) -> Iterator[tracing.Ended]:
        parent = W3C.extract({"traceparent": traceparent or ""}, context.Context())
        accepted = trace.get_current_span(parent).get_span_context()
        span = self.tracer.start_span(
            f"run {kind}",
            parent,
            SpanKind.CONSUMER,
            {**_of("process", "run", kind), **attributes},
            [Link(accepted)] if accepted.is_valid else None,
        )

        def ended(outcome: str, error: str | None) -> None:
            span.set_attribute("ordered_work.outcome", outcome)
            if error is not None:
                _failed(span, error)

        token = context.attach(trace.set_span_in_context(span, parent))
        try:
            yield ended
        except BaseException as error:
            _failed(span, type(error).__name__)
            raise
        finally:
            context.detach(token)
            span.end()

    def current(self) -> dict[str, str]:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}

    def flush(self, seconds: float) -> None:
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:  # in a thread: what it waits for may not answer
            sending = threading.Thread(target=flush, name="last-spans", daemon=True)
            sending.start()
            sending.join(seconds)


def _named_by(headers: Mapping[str, str]) -> context.Context:
    """The trace that a caller's headers name; none, where strangers shall not decide what is sampled."""
    return propagate.extract(headers) if settings.ENV.trace_callers else context.Context()


def _of(operation: str, name: str, kind: str) -> dict[str, str]:
    return {
        **SYSTEM,
        "messaging.operation.type": operation,
        "messaging.operation.name": name,
        "messaging.destination.name": kind,
    }


def _failed(span: trace.Span, error: str) -> None:
    """Its type alone: a message may quote the payload."""
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))
