"""The form that is made from a kind's JSON Schema: it sends what was meant, and names the field of what was not."""

import pytest

from tests.page.eyes import Page
from tests.page.site import Owner

pytestmark = pytest.mark.django_db  # for its tables


def test_a_refused_form_names_the_field_and_keeps_what_was_typed(signed_in: Page, owner: Owner) -> None:
    signed_in.choose("Kind", "demo.steps")
    signed_in.fill("Steps", "0")
    signed_in.click(".new [type=submit]")
    signed_in.until("document.activeElement.getAttribute('aria-invalid') === 'true'")
    described = signed_in.js(
        "const field = document.activeElement;"
        "return [field.labels[0].innerText, field.value, field.getAttribute('aria-describedby').split(' ')"
        ".map((id) => document.getElementById(id).innerText).join(' ')]"
    )
    assert described[:2] == ["Steps", "0"]
    assert "greater than or equal to 1" in described[2]
    signed_in.fill("Steps", "3")
    signed_in.click(".new [type=submit]")
    signed_in.sees("[1,2,3]", ".row.over")
    assert signed_in.js("return document.querySelectorAll('[aria-invalid]').length") == 0
    assert owner.get("queue")["depth"] == 0


def test_every_sort_of_field_of_a_schema_is_sent_as_it_is_meant(signed_in: Page, owner: Owner) -> None:
    signed_in.choose("Kind", "page.order")
    signed_in.choose("Product", "tea")
    signed_in.fill("Amount", "2")
    signed_in.fill("Price", "1.5")
    signed_in.labelled("Gift").click()
    signed_in.fill("Lines", "first\nsecond")
    signed_in.fill("Street", "Long Lane")
    signed_in.fill("Extra", "{broken")
    signed_in.click(".new [type=submit]")
    signed_in.sees("This is no JSON", ".new .error:not([hidden])")
    assert signed_in.found_by_axe() == []
    signed_in.fill("Extra", '{"deep": [1, {"a": null}]}')
    signed_in.click(".new [type=submit]")
    signed_in.sees("page.order", ".row.over")
    (sent,) = owner.get("requests")["results"]
    assert sent["payload"] == {
        "product": "tea", "amount": 2, "price": 1.5, "gift": True, "lines": ["first", "second"],
        "place": {"street": "Long Lane"}, "extra": {"deep": [1, {"a": None}]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "typed", "number"),
    [
        ("Exact", "9007199254740993", "9007199254740993"),
        ("Anything", '{"12345678901234567890": [1.5, {"a": -9007199254740993}]}', "-9007199254740993"),
        ("Anything", "1e999", "1e999"),
    ],
)
def test_a_number_that_a_browser_would_change_is_refused_at_its_field(
    signed_in: Page, owner: Owner, field: str, typed: str, number: str
) -> None:
    signed_in.choose("Kind", "page.choices")
    signed_in.fill(field, typed)
    signed_in.click(".new [type=submit]")
    signed_in.until("document.activeElement.getAttribute('aria-invalid') === 'true'")
    assert signed_in.js("return document.activeElement.labels[0].innerText").startswith(field)
    signed_in.sees(f"A browser cannot send {number} exactly.", ".new .error:not([hidden])")
    signed_in.fill(field, "9007199254740991")
    signed_in.click(".new [type=submit]")
    signed_in.sees("page.choices", ".row.over")
    assert owner.get("requests")["results"][0]["payload"][field.lower()] == 9007199254740991


def test_what_may_be_null_can_be_left_empty_and_yes_or_no_is_said_only_where_it_was_chosen(
    signed_in: Page, owner: Owner
) -> None:
    signed_in.choose("Kind", "page.choices")
    signed_in.click(".new [type=submit]")
    signed_in.until("document.querySelectorAll('.row.over').length === 1")
    signed_in.choose("Asked", "No")
    signed_in.choose("Needed", "Yes")
    signed_in.choose("Single", "only")
    signed_in.choose("Level", "None")
    signed_in.fill("Anything", "null")
    signed_in.click(".new [type=submit]")
    signed_in.until("document.querySelectorAll('.row.over').length === 2")
    later, first = owner.get("requests?order=desc")["results"]
    assert first["payload"] == {"needed": None, "level": 2, "exact": 0, "anything": 5}
    assert later["payload"] == {
        "asked": False, "needed": True, "single": "only", "level": None, "exact": 0, "anything": None,
    }  # fmt: skip
