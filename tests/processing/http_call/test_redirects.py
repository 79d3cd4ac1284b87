"""A redirect leads no further than a call itself may go."""

from typing import Any

import pytest

from processing.handlers import Reject
from processing.http_call.transport import AddressRefused
from tests.processing.http_call.conftest import Place, call


def redirect(place: Place, path: str, status: int, to: str) -> None:
    place.page(path)(lambda visit: visit.answer(status, Location=to))


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_redirect_to_an_address_that_is_not_public_is_refused(
    place: Place, elsewhere: Place, names: dict[str, list[list[str]]], allow: Any, host: str
) -> None:
    allow("outside.test")  # stands for a public server
    names["outside.test"] = [["127.0.0.1"]]
    elsewhere.page()(lambda visit: visit.answer(200, b"secret"))
    redirect(place, "/", 302, elsewhere.at(host=host))
    with pytest.raises(AddressRefused):
        call(place.at(host="outside.test"))
    assert (len(place.visits), elsewhere.visits) == (1, [])


def test_a_name_is_checked_again_when_it_redirects_to_itself(
    place: Place, names: dict[str, list[list[str]]], allow: Any
) -> None:
    allow("127.0.0.1")
    names["turning.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    redirect(place, "/", 307, "/again")
    with pytest.raises(AddressRefused):
        call(place.at(host="turning.test"))


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"), (302, "DELETE", "DELETE"), (307, "POST", "POST"), (308, "PATCH", "PATCH"),
    ],
)  # fmt: skip
def test_redirects_change_the_method_as_browsers_do(place: Place, status: int, method: str, then: str) -> None:
    redirect(place, "/a/b", status, "../c?d")
    place.page("/c")(lambda visit: visit.answer(200))
    body = None if method == "HEAD" else "text"
    result = call(place.at("/a/b"), method, headers={"Authorization": "mine"}, body=body)
    last = place.visits[-1]
    assert (result["url"], last.command) == (place.at("/c?d"), then)
    assert last.content == (b"text" if then == method != "HEAD" else b"")
    assert ("Content-Type" in last.headers) == (then == method != "HEAD")
    assert last.headers["Authorization"] == "mine", "the same origin"


def test_credentials_are_not_forwarded_to_another_origin(place: Place, elsewhere: Place) -> None:
    redirect(place, "/", 307, elsewhere.at())
    elsewhere.page()(lambda visit: visit.answer(200))
    secret = {"Authorization": "s1", "Cookie": "s2", "X-Api-Key": "s3", "Idempotency-Key": "s4"}
    call(place.at(), "POST", headers=secret | {"Accept": "text/x"}, body="b")
    (there,) = elsewhere.visits
    assert not [value for value in there.headers.values() if value in secret.values()]
    assert (there.headers["Accept"], there.headers["Host"]) == ("text/x", f"127.0.0.1:{elsewhere.server_port}")


def test_five_redirects_are_followed_and_no_sixth(place: Place) -> None:
    for n in range(6):
        redirect(place, f"/{n}", 302, f"/{n + 1}")
    place.page("/6")(lambda visit: visit.answer(200))
    assert call(place.at("/1"))["status"] == 200
    with pytest.raises(Reject, match="more than 5 times"):
        call(place.at("/0"))


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "gopher://127.0.0.1:6379/_x", "http://["],
)
def test_a_redirect_to_what_is_no_plain_http_url_is_refused(place: Place, location: str) -> None:
    redirect(place, "/", 302, location)
    with pytest.raises(Reject, match="302"):
        call(place.at())
