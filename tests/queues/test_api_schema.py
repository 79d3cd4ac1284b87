"""The OpenAPI document says what may be asked for, kind by kind; tests/queues/api.py holds every answer to it."""

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from pydantic import BaseModel

from queues import kinds
from queues.kinds import Kind
from queues.states import OnFailure


class Item(BaseModel):
    name: str


class Order(BaseModel):
    items: list[Item]


def document() -> dict[str, Any]:
    return dict(SchemaGenerator().get_schema(request=None, public=True))


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind in two versions, whose schema refers to another."""
    monkeypatch.setattr(kinds, "_kinds", {})
    monkeypatch.setattr(kinds, "_newest", {})
    for version in (1, 2):
        kinds.register(Kind("shop.order", version, "", Order, 1, 1, OnFailure.CONTINUE, 1, 1, False))


def test_each_kind_is_there_with_the_schema_of_its_payload(orders: None) -> None:
    schemas = document()["components"]["schemas"]
    references = {f"#/components/schemas/Submission_shop.order_v{version}" for version in (1, 2)}
    assert {one["$ref"] for one in schemas["Submission"]["oneOf"]} == references
    old, new = (schemas[f"Submission_shop.order_v{version}"] for version in (1, 2))
    assert old["properties"]["kind"] == {"const": "shop.order"}
    assert "version" in old["required"]
    assert "version" not in new["required"]
    reference = new["properties"]["payload"]["properties"]["items"]["items"]["$ref"]
    assert schemas[reference.removeprefix("#/components/schemas/")]["required"] == ["name"]


def test_every_reference_leads_somewhere() -> None:
    whole = document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return here + [one for inner in value.values() for one in references(inner)]
        return [one for inner in value for one in references(inner)] if isinstance(value, list) else []

    for reference in references(whole):
        _, _, section, name = reference.split("/")
        assert name in whole["components"][section]


def test_what_may_come_of_a_submission_is_listed() -> None:
    submit = document()["paths"]["/api/v1/requests"]["post"]
    assert set(submit["responses"]) == {
        "202",
        "400",
        "401",
        "403",
        "409",
        "411",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
    }
    assert submit["requestBody"]["required"]
    assert [parameter["name"] for parameter in submit["parameters"]] == ["Idempotency-Key"]


@pytest.mark.parametrize("path", ["token/refresh", "logout"])
def test_where_a_cookie_carries_the_token_no_body_is_asked_for(path: str) -> None:
    body = document()["paths"][f"/api/v1/auth/{path}"]["post"]["requestBody"]
    assert not body.get("required")
    assert "application/json" in body["content"]
