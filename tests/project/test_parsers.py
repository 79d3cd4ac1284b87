"""What is accepted comes back unchanged; everything else is refused, and the field is named."""

import gzip
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.rest.parsers import loads
from project.rest.problems import Problem
from tests.accounts.people import Api, named

LOGIN = "auth/token"


def refused(text: str | bytes) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        loads(text.encode() if isinstance(text, str) else text)
    (error,) = caught.value.errors
    return error.field, error.code


@pytest.mark.parametrize(
    ("text", "field", "code"),
    [
        ('{"a": 1, "a": 2}', "a", "duplicate"),
        ('{"p": [{"x": {"k": 1, "\\u006b": 2}}]}', "p.0.x.k", "duplicate"),
        ('{"a": "\\u0000"}', "a", "nul"),
        ('{"a": ["ok", "x\\u0000y"]}', "a.1", "nul"),
        ('{"a": {"k\\u0000": 1}}', "a", "nul"),
        ('{"a": "\\ud800"}', "a", "surrogate"),
        ('{"a": "\\uDFFF\\ud800"}', "a", "surrogate"),
        ('{"a": {"\\udead": 1}}', "a", "surrogate"),
        ('{"\\udead": {"a": "\\u0000"}}', "", "surrogate"),
        ('{"a": NaN}', "a", "constant"),
        ('{"a": [1, -Infinity]}', "a.1", "constant"),
        ("Infinity", "", "constant"),
        ('{"a": 1e999}', "a", "range"),
        ('{"a": -1E+400}', "a", "range"),
        ('{"a": 1e-999}', "a", "range"),
        ('{"a": 1' + "0" * 400 + ".5}", "a", "range"),
        ('{"a": 0.' + "0" * 400 + "1}", "a", "range"),
        ('{"a": 9223372036854775808}', "a", "range"),
        ('{"a": -9223372036854775809}', "a", "range"),
        ('{"a": ' + "1" * 5000 + "}", "a", "range"),
        ('{"a": -' + "9" * 100_000 + "}", "a", "range"),
        ("[" * 33 + "]" * 33, "", "depth"),
        ('{"a":' * 33 + "1" + "}" * 33, "", "depth"),
        ("[" * 100_000, "", "depth"),
        ("[" * 100_000 + "]" * 100_000, "", "depth"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "", "depth"),
        ('{"a": ' + "[" * 100_000 + '"\\u0000"' + "]" * 100_000 + "}", "", "depth"),
        ("", "", "json"),
        ("{", "", "json"),
        ("{'a': 1}", "", "json"),
        ('{"a": 1} {"b": 2}', "", "json"),
        ('{"a": 1, "a": 2} 3', "", "json"),
        ('[{"a": 1, "a": 2}, ' + "[" * 100_000, "", "depth"),
        ('{"a": 01}', "", "json"),
        ('{"a": "\x01"}', "", "json"),
        ('{"a": "\x00"}', "", "json"),
        ('\ufeff{"a": 1}', "", "json"),
        (b'{"a": "\xff"}', "", "encoding"),
        (b'{"a": "\xed\xa0\x80"}', "", "encoding"),
        ('{"a": 1}'.encode("utf-16"), "", "encoding"),
        ('{"a": 1}'.encode("utf-16-le"), "", "json"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_could_not_be_given_back_is_refused(text: str | bytes, field: str, code: str) -> None:
    assert refused(text) == (field, code)


@pytest.mark.parametrize(
    "text",
    [
        '{"b":1,"a":2}',
        '{"a":[9223372036854775807,-9223372036854775808,0.1,1e+300,-0.0,123456789.12345678]}',
        '{"a":"\\\\u0000 \\\\ud800 \\ud83d\\ude00"}',
        '{"a":"12345678901234567890123 e999"}',
        '{"":{"":""}}',
        "[" * 32 + "]" * 32,
        "[" + ",".join(["{}"] * 1000) + "]",
        "null",
    ],
)
def test_what_is_accepted_is_what_was_sent(text: str) -> None:
    assert loads(text.encode()) == json.loads(text)
    assert json.dumps(loads(text.encode()), separators=(",", ":"), ensure_ascii=True) == text


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | TEXT
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_everything_that_fits_comes_back_unchanged(value: Any, ascii_only: bool) -> None:
    sent = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert repr(loads(orjson.dumps(loads(sent)))) == repr(value)


@given(st.text() | st.binary() | st.text(alphabet='[]{}",:0123456789.eE+-\\u \0dDtrufalsn'))
def test_nothing_that_is_sent_crashes(text: str | bytes) -> None:
    body = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    try:
        value = loads(body)
    except Problem:
        return
    assert value == loads(orjson.dumps(value))


def test_the_depth_that_is_allowed_is_that_of_the_settings(settings: Any) -> None:
    settings.JSON_DEPTH = 2
    assert loads(b"[[1], [2]]") == [[1], [2]]
    assert refused("[[[1]]]") == ("", "depth")


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "multipart/form-data; boundary=x"}, 415),
        ({"content_type": "application/xml"}, 415),
        ({"content_type": ""}, 415),
        ({"content_type": "application/json; charset=utf-16"}, 415),
        ({"content_type": "application/json; charset=latin-1"}, 415),
        ({"HTTP_CONTENT_ENCODING": "gzip"}, 415),
        ({"HTTP_CONTENT_ENCODING": "br"}, 415),
        ({"content_type": "application/json; charset=UTF-8"}, 401),
        ({"content_type": 'Application/JSON;charset="utf-8"'}, 401),
        ({"HTTP_CONTENT_ENCODING": "identity"}, 401),
    ],
    ids=str,
)
def test_another_type_charset_or_coding_is_415(db: None, extra: dict[str, str], status: int) -> None:
    answer = Api().post(LOGIN, {"username": "nobody", "password": "x"}, **extra)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"


def test_a_compressed_bomb_is_never_unpacked(db: None) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    assert Api().post(LOGIN, bomb, HTTP_CONTENT_ENCODING="gzip").status_code == 415


@pytest.mark.parametrize("size", [64 * 1024 + 1, 10_000_000])
def test_a_body_too_large_is_413(db: None, size: int) -> None:
    answer = Api().post(LOGIN, b" " * size)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")


def test_a_body_too_large_is_not_read(db: None) -> None:
    class Unread:
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read")

        readline = read

    answer = Api().post(LOGIN, b"{}", CONTENT_LENGTH="10000000", **{"wsgi.input": Unread()})
    assert answer.status_code == 413


def test_a_body_of_the_largest_size_is_read(db: None) -> None:
    body = {"username": "nobody", "password": "x"}
    answer = Api().post(LOGIN, orjson.dumps(body).ljust(64 * 1024))
    assert answer.status_code == 401


def test_the_length_of_a_body_is_not_believed(db: None) -> None:
    answer = Api().post(LOGIN, b"{}" + b" " * 100, CONTENT_LENGTH="2")
    assert (answer.status_code, named(answer)[0]) == (400, ("username", "required"))


def test_a_body_without_a_length_is_not_taken_for_empty(db: None) -> None:
    answer = Api().post(LOGIN, b"", HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert (answer.status_code, answer.json()["type"]) == (411, "/problems/length-required")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"{}", b""])
def test_a_body_that_is_no_object_is_400(db: None, body: bytes) -> None:
    answer = Api().post(LOGIN, body)
    assert answer.status_code == 400
    assert answer.json()["errors"]
