"""A message's header `traceparent` names the trace that goes on with its request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from processing.kafka.group import accept_group, resolve
from processing.kafka.reading import Message, read
from project.telemetry import tracing
from project.telemetry.spans import Spans
from tests.processing.crew import new_user, requests_of
from tests.processing.kafka.brokers import event

pytestmark = pytest.mark.django_db(transaction=True)

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE, SPAN = CALLER[3:35], CALLER[36:52]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans()
    spans.tracer = provider.get_tracer("a test")
    monkeypatch.setattr(tracing, "tracer", spans)
    yield exporter
    provider.shutdown()


def accept(*messages: tuple[str, list[tuple[str, bytes | None]]]) -> int:
    """Of these users' messages, with these headers; how many were left."""
    events = [
        read(Message("requests", 0, at, name.encode(), json.dumps(event(f"{name} {at}")).encode(), headers))
        for at, (name, headers) in enumerate(messages)
    ]
    entries, rejected = resolve(events)
    assert not rejected
    with transaction.atomic():
        return len(accept_group(entries).left)


def named(*others: Any) -> list[tuple[str, bytes | None]]:
    return [("traceparent", CALLER.encode()), ("source", b"\xff\x00"), ("empty", None), *others]


def test_each_request_goes_on_with_the_trace_that_its_message_names(exported: InMemorySpanExporter) -> None:
    one, other, broken = new_user(), new_user(), new_user()
    accept((one.username, named()), (other.username, []), (broken.username, [("traceparent", b"\xff")]))
    [traced], [untraced], [odd] = (requests_of(user) for user in (one, other, broken))
    spans = {f"{span.context.span_id:016x}": span for span in exported.get_finished_spans()}
    assert len(spans) == 3
    assert (traced.traceparent or "")[:36] == f"00-{TRACE}-"
    parent = spans[(traced.traceparent or "")[36:52]].parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == SPAN
    for request in (untraced, odd):
        assert spans[(request.traceparent or "")[36:52]].parent is None, "a trace begins"


def test_what_has_no_room_has_no_span(exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "waiting_limit", 0)
    assert accept((new_user().username, named())) == 1
    assert not exported.get_finished_spans()


def test_who_does_not_trust_callers_begins_traces_of_his_own(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "trace_callers", False)
    user = new_user()
    accept((user.username, named()))
    (request,) = requests_of(user)
    assert request.traceparent
    assert TRACE not in request.traceparent
    assert tracing.tracer is not None
    with tracing.tracer.caller({"traceparent": CALLER}), tracing.tracer.submit("demo.echo", None, 2) as traceparent:
        assert traceparent
        assert TRACE not in traceparent
    assert all(span.parent is None for span in exported.get_finished_spans())


def test_without_tracing_the_header_leaves_nothing() -> None:
    user = new_user()
    accept((user.username, named()))
    assert [one.traceparent for one in requests_of(user)] == [None]
