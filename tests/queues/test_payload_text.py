"""A payload is kept as the text that was sent, whatever stands around it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.rest.parsers import loads
from queues.enqueue.parsing import payload_text

SPACE = st.text(" \t\r\n", max_size=2)
NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1E+3", "1e-300", "0.1000000000000000055511151231257827", "123456789012345"]
)
STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).flatmap(
    lambda text: st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)])
)
SCALARS = st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS


def spaced(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SPACE, parts, SPACE).map("".join)


def objects(members: st.SearchStrategy[list[tuple[str, str]]]) -> st.SearchStrategy[str]:
    return members.map(lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}")


def members_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(
        st.tuples(spaced(STRINGS), spaced(values)), max_size=4, unique_by=lambda pair: str(json.loads(pair[0]))
    )


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(spaced(inner), max_size=4).map(lambda values: f"[{','.join(values)}]") | objects(members_of(inner))
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(['"payload"', r'"p\u0061yload"'])


@given(NAMES, VALUES, SPACE, SPACE, members_of(VALUES), st.integers(0, 4))
def test_a_payload_is_the_text_that_was_sent(
    name: str, payload: str, before: str, after: str, others: list[tuple[str, str]], at: int
) -> None:
    others = [pair for pair in others if json.loads(pair[0]) != "payload"]
    pairs = [*others[:at], (name, before + payload + after), *others[at:]]
    body = (before + "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}" + after).encode()
    assert loads(body)["payload"] == json.loads(payload)
    assert payload_text(body) == payload


@pytest.mark.parametrize("body", [b"{}", b'{"kind": {"payload": 1}}', b'{"Payload": 1}'])
def test_an_object_without_one_has_none(body: bytes) -> None:
    assert payload_text(body) is None
