"""RABBITMQ_URL names one node or several."""

import pytest

from processing.broker.amqp import Link
from project.rabbitmq_addresses import amqp_urls
from project.settings import ENV


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("amqp://u:p@a:5672/%2F", ["amqp://u:p@a:5672/%2F"]),
        ("amqp://u:p@a:1,b:2,c/v", ["amqp://u:p@a:1/v", "amqp://u:p@b:2/v", "amqp://u:p@c/v"]),
        ("amqp://a/v;amqps://u:p,q@b/w", ["amqp://a/v", "amqps://u:p,q@b/w"]),
        ("amqp://a/v,amqp://b/v", ["amqp://a/v", "amqp://b/v"]),
        ("amqp://u:p@[::1]:5672,b/v", ["amqp://u:p@[::1]:5672/v", "amqp://u:p@b/v"]),
    ],
)
def test_each_address_has_its_url(text: str, urls: list[str]) -> None:
    assert amqp_urls(text) == urls


@pytest.mark.parametrize("text", ["http://a/", "amqp://", "amqp://a,,b/v", "amqp://a:x,b/v", "a:5672", "amqp://a;b"])
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="RABBITMQ_URL"):
        amqp_urls(text)


def test_one_node_that_is_away_keeps_nobody_out() -> None:
    first = amqp_urls(ENV.rabbitmq_url)[0]
    for _ in range(4):  # they are tried in an order of chance
        link = Link(f"amqp://guest:guest@127.0.0.1:1/x;{first}")
        assert link.is_open
        link.close()
