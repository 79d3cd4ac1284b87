"""A virtual host whose queues are quorum queues by default gets classic ones from us all the same."""

import subprocess
from collections.abc import Iterator

import pika
import pytest
from django.conf import settings

from processing.broker import tokens
from processing.handlers import HandlerRequest
from scripts.servers.rabbitmq import Rabbitmq, with_vhost
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, statuses_of, submit

pytestmark = pytest.mark.django_db(transaction=True)

VHOST = "quorum-by-default"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbitmq]:
    server = Rabbitmq(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    try:
        assert server.control.run("add_vhost", VHOST, "--default-queue-type", "quorum")
        assert server.control.run("set_permissions", "-p", VHOST, "ordered_work", ".*", ".*", ".*")
        yield server
    finally:
        server.stop()


def types(server: Rabbitmq) -> dict[str, str]:
    """The type of each queue of the virtual host."""
    asked = [server.control.program, "-q", "list_queues", "-p", VHOST, "name", "type", "--no-table-headers"]
    output = subprocess.run(asked, env=server.control.environment, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in output.splitlines())


@pytest.fixture
def _on_it(server: Rabbitmq, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings.ENV, "rabbitmq_url", with_vhost(server.url, VHOST))
    yield
    tokens.learn(0)


@pytest.mark.usefixtures("_on_it")
def test_a_default_of_quorum_queues_changes_nothing(hand: Hand, script: Script, server: Rabbitmq) -> None:
    ran: list[int] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    alice = new_user()
    submit(alice, "note", "note", "note")
    hand.settle()
    assert statuses_of(alice) == ["succeeded"] * 3
    assert ran == [1, 2, 3]
    declared = types(server)
    assert len(declared) >= 2, "the user's queue and that of the tokens"
    assert set(declared.values()) == {"classic"}
    with pika.BlockingConnection(pika.URLParameters(settings.ENV.rabbitmq_url)) as connection:
        connection.channel().queue_declare("of-no-type", durable=True)
    assert types(server)["of-no-type"] == "quorum", "the default is what this test thinks"
