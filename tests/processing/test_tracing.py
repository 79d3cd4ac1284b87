"""One trace from the caller through every attempt to what the handler did, across the processes; and none where off."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from accounts.models import Session
from queues.models import Request
from scripts.place import ROOT
from tests.processing.crew import new_user, queue_of, requests_of
from tests.processing.spans import Collector, environment_for
from tests.processing.test_streams import serving
from tests.queues.api import Caller
from tests.waiting import until
from tests.watched import watched

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = CALLER[3:35]
HANDLERS = """
import structlog
from opentelemetry import trace

from processing.handlers import handler

log = structlog.get_logger()


@handler("shop.charge", backoff=0.02, backoff_cap=0.1)
def charge(request, payload):
    with trace.get_tracer("shop").start_as_current_span("call the bank"):
        log.info("calling")
        if request.attempt <= payload["fails"]:
            raise RuntimeError("secret of the payload")
    request.submit("demo.echo", "receipt")


@handler("shop.note", atomic=True)
def note(request, payload):
    return payload
"""


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """An app of somebody's own, for the environment of processes."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "handlers.py").write_text(HANDLERS)
    return {"EXTRA_APPS": "shop", "PYTHONPATH": str(tmp_path), "LOG_FORMAT": "json"}


@contextmanager
def service(environment: dict[str, str], output: Path) -> Iterator[int]:
    """API, dispatcher and a worker process; the API's port. All have ended, and sent what they had, after it."""
    environment = environment | watched()
    with output.open("ab") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "manage.py", *words], cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log
            )
            for words in (["dispatch"], ["work", "--processes", "1", "--threads", "2"])
        ]
        try:
            with serving(**environment) as server:
                until(server.answers, 90, "the API answers")
                yield server.port
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(40)


def post(port: int, path: str, token: str, body: Any, **headers: str) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "traceparent": CALLER, **headers}
    connection.request("POST", f"/api/v1/{path}", json.dumps(body), sent)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status == 202, found
    return found


def test_one_trace_leads_from_the_caller_through_each_attempt_to_what_its_handler_did(
    shop: dict[str, str], tmp_path: Path
) -> None:
    user, log = new_user(), tmp_path / "log"
    token = Session.open(user).access
    with Collector() as collector:
        with service(shop | environment_for(collector.address), log) as port:
            asked = post(port, "requests", token, {"kind": "shop.charge", "payload": {"fails": 1}})["id"]
            until(lambda: len(requests_of(user)) == 2, 60, "the handler has submitted the next one")
            until(lambda: all(one.finished_at for one in requests_of(user)), 60, "both are final")
        spans = collector.of(TRACE)
    charge, receipt = requests_of(user)
    assert Counter(span.name for span in spans) == {
        "submit shop.charge": 1, "run shop.charge": 2, "call the bank": 2, "submit demo.echo": 1, "run demo.echo": 1,
    }  # fmt: skip
    submitted = next(span for span in spans if span.name == "submit shop.charge")
    assert (submitted.kind, submitted.parent_id, submitted.service) == ("producer", CALLER[36:52], "ordered-work")
    assert submitted.attributes["messaging.message.id"] == asked
    assert charge.traceparent == f"00-{TRACE}-{submitted.span_id}-01"
    first, second = sorted(
        (span for span in spans if span.name == "run shop.charge"),
        key=lambda span: span.attributes["ordered_work.attempt"],
    )
    for span in (first, second):
        assert (span.kind, span.parent_id, span.linked) == ("consumer", submitted.span_id, [submitted.span_id])
        assert (span.attributes["messaging.message.id"], span.attributes["user.id"]) == (asked, str(user.id))
    assert (first.failed, first.attributes["ordered_work.outcome"], first.attributes["error.type"]) == (
        True, "failed", "RuntimeError",
    )  # fmt: skip
    assert (second.failed, second.attributes["ordered_work.outcome"]) == (False, "succeeded")
    assert {span.parent_id for span in spans if span.name == "call the bank"} == {first.span_id, second.span_id}
    again = next(span for span in spans if span.name == "submit demo.echo")
    ran = next(span for span in spans if span.name == "run demo.echo")
    assert (again.parent_id, ran.parent_id) == (second.span_id, again.span_id)
    assert (receipt.traceparent or "")[36:52] == again.span_id
    ours = [span for span in spans if span.name != "call the bank"]
    assert "secret" not in str(ours)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    calling = [line for line in lines if line["event"] == "calling"]
    bank = [span.span_id for span in spans if span.name == "call the bank"]
    assert [(line["trace_id"], line["span_id"] in bank) for line in calling] == [(TRACE, True)] * 2
    told = {line["event"]: line.get("trace_id") for line in lines if line.get("request") == asked}
    assert {event: told[event] for event in ("started", "retrying", "succeeded")} == dict.fromkeys(
        ("started", "retrying", "succeeded"), TRACE
    )


def test_batches_repeatable_submissions_and_atomic_handlers_are_traced_too(
    shop: dict[str, str], tmp_path: Path
) -> None:
    user = new_user()
    token = Session.open(user).access
    unsampled = CALLER[:-2] + "00"
    with Collector() as collector:
        with service(shop | environment_for(collector.address), tmp_path / "log") as port:
            both = [{"kind": "shop.note", "payload": 1}, {"kind": "demo.echo", "payload": 2}]
            post(port, "requests/batch", token, {"requests": both})
            post(port, "requests", token, both[0], **{"Idempotency-Key": "one", "traceparent": ""})
            post(port, "requests", token, both[0], traceparent=unsampled)
            until(lambda: len([one for one in requests_of(user) if one.finished_at]) == 4, 60, "all are final")
        spans, everything = collector.of(TRACE), list(collector.spans)
    batch = next(span for span in spans if span.name == "submit demo.echo,shop.note")
    assert (batch.parent_id, batch.attributes["messaging.batch.message_count"]) == (CALLER[36:52], 2)
    assert sorted(span.name for span in spans) == ["run demo.echo", "run shop.note", batch.name]
    assert {span.attributes["ordered_work.outcome"] for span in spans if span.kind == "consumer"} == {"succeeded"}
    keyed = [span for span in everything if span.trace_id != TRACE]
    assert sorted((span.name, bool(span.parent_id)) for span in keyed) == [
        ("run shop.note", True),
        ("submit shop.note", False),
    ], "a trace of its own; and the caller's word that its trace is not kept holds to the end"
    assert re.fullmatch(rf"00-{TRACE}-\w{{16}}-00", requests_of(user)[3].traceparent or "")


def test_a_collector_that_never_answers_holds_up_nobody(shop: dict[str, str], tmp_path: Path) -> None:
    user = new_user()
    token = Session.open(user).access
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = shop | environment_for(endpoint)
        with service(environment, tmp_path / "log") as port:
            post(port, "requests", token, {"kind": "demo.echo", "payload": 1})
            until(lambda: requests_of(user)[0].finished_at, 60, "it is final")
            began = time.monotonic()
        assert time.monotonic() - began < 25


def test_without_tracing_a_header_leaves_nothing() -> None:
    caller = Caller()
    answer = caller.post("requests", {"kind": "demo.echo", "payload": 1}, HTTP_TRACEPARENT=CALLER)
    assert answer.status == 202
    assert Request.objects.get(id=answer.json["id"]).traceparent is None
    assert queue_of(caller.user).last_seq == 1


@pytest.mark.parametrize(
    ("environment", "before", "said"),
    [
        ({}, "", "started without"),
        ({"TRACING": "true"}, "sys.modules['opentelemetry'] = None", "TRACING=true needs OpenTelemetry"),
        ({"TRACING": "true", "OTEL_TRACES_EXPORTER": "zipkin"}, "", "there is no exporter 'zipkin'"),
        ({"TRACING": "true", "OTEL_TRACES_EXPORTER": "none"}, "", "started with"),
        ({"TRACING": "true", "OTEL_SDK_DISABLED": "true"}, "", "started with"),
    ],
)
def test_the_packages_are_needed_where_tracing_is_on_and_nowhere_else(
    environment: dict[str, str], before: str, said: str
) -> None:
    code = f"""
import sys
{before}
from project.start import set_up
set_up()
print("started", "with" if "project.telemetry.spans" in sys.modules else "without")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
