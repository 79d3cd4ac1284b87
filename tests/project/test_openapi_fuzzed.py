"""Whatever is sent, the answer is one that the OpenAPI document promises: no other status, no other shape, no crash.

A thousand examples, the same in every run. Ten thousand, in about ten times as long:
SCHEMA_EXAMPLES=10000 ./run test tests/project/test_openapi_fuzzed.py -s
"""

import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode

from accounts.hashers import OrderlyArgon2
from accounts.models import Session, User
from project.web import rate_limit
from project.web.rate_limit import Limit
from queues.api.events import OPENING, LoopsBody
from tests.accounts.people import make_user
from tests.project.routes import ABSENT, ROUTES, Served
from tests.queues.rows import queue_of

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "1000"))
PROMISES = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
API = get_wsgi_application()
SCHEMA = schemathesis.openapi.from_wsgi("/api/schema", API)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


async def opened(_: LoopsBody) -> AsyncIterator[bytes]:
    yield OPENING


@pytest.fixture(scope="module")
def world() -> Iterator[Counter[tuple[str, int]]]:
    """A world in which nothing takes long and no limit ends the examples; counts (operation, status)."""
    answered: Counter[tuple[str, int]] = Counter()
    each_request = (request_started, request_finished)
    for signal in each_request:
        signal.disconnect(close_old_connections)  # it would end the test's transaction
    with pytest.MonkeyPatch.context() as patch:
        for cost, least in {"time_cost": 1, "memory_cost": 8, "parallelism": 1}.items():
            patch.setattr(OrderlyArgon2, cost, least)
        for name in ("SUBMIT", "FAILED_LOGINS", "LOGINS", "REGISTRATIONS", "ACCOUNT_CALLS", "MAILS", "EXPORTS"):
            patch.setattr(rate_limit, name, Limit(f"fuzzed-{name.lower()}", 10**9))
        patch.setattr(LoopsBody, "__aiter__", opened)  # what comes then comes for ever
        patch.setattr("queues.live.sse.LINGER_SECONDS", 0.0)
        yield answered
    for signal in each_request:
        signal.connect(close_old_connections)
    print(
        f"\n{sum(answered.values())} examples: {sorted(Counter(status for _, status in answered.elements()).items())}"
    )


def use_of(operation: Any) -> Served:
    """The row of the table of all routes for an operation of the document."""
    path = re.sub(r"{(\w+)}", r"<str:\1>", operation.path.lstrip("/")).replace("<str:session_id>", "<uuid:session_id>")
    return ROUTES[path][operation.method.upper()]


def committed(operation: Any) -> Any:
    """Streams look, and submissions are accepted, over another connection: only they need a database that commits."""
    elsewhere = operation.path.endswith("/events") or operation.label == "POST /api/v1/requests"
    return pytest.param(operation, id=operation.label, marks=pytest.mark.django_db(transaction=elsewhere))


def examples_of(operation: Any) -> st.SearchStrategy[Any]:
    """What fits the document, what does not, and which user sends it with what of whose."""
    sent = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )
    return st.tuples(sent, st.booleans(), st.sampled_from(["mine", "mine", "theirs", "absent", "as drawn"]))


@pytest.mark.no_cover  # what it runs is covered elsewhere, and being watched takes half as long again
@pytest.mark.timeout(EXAMPLES)
@pytest.mark.parametrize("operation", [committed(operation) for operation in OPERATIONS])
def test_every_answer_is_one_that_is_promised(operation: Any, world: Counter[tuple[str, int]]) -> None:
    use, label = use_of(operation), operation.label

    @settings(
        max_examples=-(-EXAMPLES // len(OPERATIONS)),
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(example=examples_of(operation))
    def holds(example: Any) -> None:
        case, signed, whose = example
        me, other = make_user(), make_user()
        queue_of(me)
        if case.path_parameters:
            place(case, use, {"mine": me, "theirs": other}.get(whose), whose)
        if use.body and whose == "mine" and case.meta.generation.mode.is_positive:
            case.body = use.body()
        headers = {"Authorization": f"Bearer {Session.open(me).access}"} if signed or not use.public else {}
        response = case.call(headers=headers)
        world[label, response.status_code] += 1
        # What else was made not to fit, the id or the token, this test may have mended itself.
        taken = response.status_code < 400 and case.meta.is_negative_at(ParameterLocation.BODY)
        case.validate_response(response, checks=[*PROMISES, *([checks.negative_data_rejection] if taken else [])])

    holds()
    assert world[label, use.status], f"{label} never answered {use.status}: {world}"


def place(case: Any, use: Served, owner: User | None, whose: str) -> None:
    """Put an id into the path: of something of the owner's, or of nothing."""
    if owner is not None and use.owned is not None:
        case.path_parameters |= dict.fromkeys(case.path_parameters, str(use.owned(owner)))
    elif whose == "absent":
        case.path_parameters |= dict.fromkeys(case.path_parameters, ABSENT)
