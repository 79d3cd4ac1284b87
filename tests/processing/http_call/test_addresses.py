"""`http.call` connects to public addresses alone, and to those that a setting opens."""

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from processing.http_call.ssrf import is_public, may_connect
from processing.http_call.transport import AddressRefused, CallFailed
from tests.processing.crew import Hand, attempts_of, new_user, requests_of, submit
from tests.processing.http_call.conftest import Place, call


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.192",
        "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "168.63.129.16",
        "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1", "5f00::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str, allow: Any) -> None:
    allow("")
    assert not is_public(ip_address(address))
    assert not may_connect("name.test", address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_not_refused(address: str, allow: Any) -> None:
    allow("")
    assert may_connect("name.test", address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0177.0.0.1", "017700000001", "0x7f000001", "0x7f.1",
        "127.1", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "127。0。0。1", "①②⑦.⓪.⓪.①", "%31%32%37.0.0.1",
    ],
)  # fmt: skip
def test_no_way_to_write_this_machine_leads_to_it(place: Place, allow: Any, host: str) -> None:
    allow("")
    place.page()(lambda visit: visit.answer(200, b"secret"))
    with pytest.raises(AddressRefused, match="not public"):
        call(place.at(host=host))
    assert place.visits == []


def test_a_refused_call_gets_no_other_attempt_and_tells_no_address(place: Place, hand: Hand, allow: Any) -> None:
    allow("")
    user = new_user()
    submit(user, {"method": "GET", "url": place.at(host="localhost")}, kind="http.call")
    hand.settle()
    (refused,) = requests_of(user)
    assert (refused.status, refused.attempt) == ("failed", 1)
    assert attempts_of(refused) == [(1, "rejected")]
    assert refused.error["message"] == (
        "localhost leads to an address that is not public, which http.call does not connect to. An operator can allow "
        "it: HTTP_CALL_ALLOW."
    )


def test_what_was_checked_is_what_is_connected_to(
    place: Place, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, allow: Any
) -> None:
    """Rebinding: public when it is looked at, this machine when it is asked for once more."""
    allow("")
    tried = []

    def connect(_: object, address: Any) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["rebinding.test"] = [["93.184.215.14"], ["127.0.0.1"]]
    with pytest.raises(CallFailed):
        call(place.at(host="rebinding.test"))
    assert tried == ["93.184.215.14"]
    with pytest.raises(AddressRefused):
        call(place.at(host="rebinding.test"))
    assert tried == ["93.184.215.14"]


def test_of_several_addresses_only_permitted_ones_are_connected_to(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, allow: Any
) -> None:
    allow("")
    tried = []

    def connect(_: object, address: Any) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["both.test"] = [["10.0.0.1", "93.184.215.14", "::1"]]
    with pytest.raises(CallFailed):
        call("http://both.test/")
    assert tried == ["93.184.215.14"]


@pytest.mark.parametrize("named", ["127.0.0.0/8", "10.0.0.1, 127.0.0.1", "inside.test", "Inside.Test."])
def test_a_setting_opens_what_it_names(place: Place, names: dict[str, list[list[str]]], allow: Any, named: str) -> None:
    allow(named)
    names["inside.test"] = [["127.0.0.1"]]
    place.page()(lambda visit: visit.answer(200))
    assert call(place.at(host="inside.test"))["status"] == 200


def test_a_setting_opens_nothing_else(place: Place, names: dict[str, list[list[str]]], allow: Any) -> None:
    allow("inside.test,10.0.0.0/8")
    names |= {"not-inside.test": [["127.0.0.1"]], "sub.inside.test": [["127.0.0.1"]]}
    for host in ("not-inside.test", "sub.inside.test", "127.0.0.1"):
        with pytest.raises(AddressRefused):
            call(place.at(host=host))
