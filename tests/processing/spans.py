"""A collector of OpenTelemetry's spans, as OTLP sends them over HTTP."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """One span that arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    linked: list[str]
    attributes: dict[str, Any]
    failed: bool
    service: str


@dataclass
class Collector:
    """Listens on a port of its own and keeps what arrives."""

    spans: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.spans += seen(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def of(self, trace_id: str) -> list[Seen]:
        return [span for span in self.spans if span.trace_id == trace_id]


def environment_for(address: str) -> dict[str, str]:
    """Of processes that are to send their spans there."""
    return {
        "TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",  # what arrives was sent when its process ended
    }


def seen(sent: ExportTraceServiceRequest) -> list[Seen]:
    found = []
    for resource in sent.resource_spans:
        about = values(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Seen(
                    span.name,
                    span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [link.span_id.hex() for link in span.links],
                    values(span.attributes),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    about["service.name"],
                )
                for span in scope.spans
            ]
    return found


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
