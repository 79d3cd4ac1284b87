"""The documentation teaches: each route has a summary, a group and examples, and what they show can be sent and got."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from jsonschema import Draft202012Validator

from project.rest.introduction import TAGS
from project.rest.pages import MEANINGS
from queues.api.events import OPENING
from queues.live.change_feed import EventId, event
from tests.accounts.people import Api
from tests.queues.events import read
from tests.queues.test_api_schema import document

DOCUMENT = document()
OPERATIONS = [
    pytest.param(operation, id=operation["operationId"])
    for methods in DOCUMENT["paths"].values()
    for operation in methods.values()
]
NOT_TOLD = "tell() an example of it: see project/rest/examples.py"


def refuse_what_does_not_fit(schema: Any, example: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}  # what it refers to
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(example)


def answers_of(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            yield status, media_type, content


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_route_has_a_summary_a_description_and_a_group(operation: dict[str, Any]) -> None:
    assert operation.get("summary"), NOT_TOLD
    assert len(operation["summary"]) < 50
    assert operation["description"]
    assert operation["tags"][0] in {tag["name"] for tag in TAGS}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_body_has_an_example_that_fits_it(operation: dict[str, Any]) -> None:
    bodies = list(operation.get("requestBody", {}).get("content", {}).values())
    bodies += [content for status, _, content in answers_of(operation) if status < "400"]
    for content in bodies:
        assert "example" in content, NOT_TOLD
        refuse_what_does_not_fit(content["schema"], content["example"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_error_has_an_example_that_fits_it_and_leads_to_its_page(operation: dict[str, Any]) -> None:
    errors = [one for one in answers_of(operation) if one[0] >= "400"]
    assert errors
    for status, media_type, content in errors:
        assert media_type == "application/problem+json"
        assert content["examples"]
        for name, example in content["examples"].items():
            refuse_what_does_not_fit(content["schema"], example["value"])
            assert example["value"]["type"] == f"/problems/{name}"
            assert example["value"]["status"] == int(status) == MEANINGS[name].status
            assert name != "validation" or example["value"]["errors"]


def test_the_stream_that_is_shown_is_one_that_could_come() -> None:
    shown = Api().get("/api/schema").json()["paths"]["/api/v1/queue/events"]["get"]["responses"]["200"]
    opening, text = shown["content"]["text/event-stream"]["example"].encode().split(b"\n\n", 1)
    assert opening + b"\n\n" == OPENING
    (one,) = read(text)
    place = EventId.read(one.id)
    assert place is not None
    assert text.replace(b'": ', b'":').replace(b', "', b',"') == event("queue", place, one.data)
    assert place.last - place.done == one.data["depth"]
    refuse_what_does_not_fit({"$ref": "#/components/schemas/QueueShown"}, one.data)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_body_that_is_too_large_is_measured_by_its_routes_own_limit(operation: dict[str, Any]) -> None:
    for status, _, content in answers_of(operation):
        if status == "413":
            limit = settings.BATCH_BODY_LIMIT if operation["operationId"] == "submit_batch" else settings.BODY_LIMIT
            detail = content["examples"]["body-too-large"]["value"]["detail"]
            sent, allowed = map(int, re.fullmatch(r"The body has (\d+) bytes; (\d+) are allowed.", detail).groups())  # type: ignore[union-attr]
            assert sent > allowed == limit


def test_an_example_that_does_not_fit_would_be_found() -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        refuse_what_does_not_fit({"$ref": "#/components/schemas/TokensShown"}, {"access": 1})


def test_groups_and_routes_come_in_the_order_of_use() -> None:
    shown = Api().get("/api/schema").json()
    assert [tag["name"] for tag in shown["tags"]] == [tag["name"] for tag in TAGS]
    paths = list(shown["paths"])
    assert paths[:2] == ["/api/v1/auth/register", "/api/v1/auth/token"]
    assert paths.index("/api/v1/auth/token") < paths.index("/api/v1/requests") < paths.index("/api/v1/queue/pause")


def test_the_documentation_opens_with_a_token_and_the_first_request() -> None:
    opening = Api().get("/api/schema").json()["info"]["description"]
    places = [opening.index(text) for text in ("/auth/register", "/auth/token", "/requests -H", "## What holds")]
    assert places == sorted(places)
