"""From a message to a request: exactly one, in its user's order, over the real protocol."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from accounts.models import User
from processing.kafka import partitions
from processing.kafka.ingester import Ingester
from processing.kafka.models import Event, RejectedMessage
from queues.models import Request, UserQueue
from tests.metrics import counted
from tests.processing.crew import new_user, queue_of, requests_of
from tests.processing.frozen import QUEUE, frozen
from tests.processing.kafka.brokers import Broker, event
from tests.processing.kafka.conftest import Ingest

ROOT = Path(__file__).resolve().parents[3]


def payloads_of(user: User) -> list[Any]:
    return [request.payload for request in requests_of(user)]


def rejected(topic: str) -> list[RejectedMessage]:
    return list(RejectedMessage.objects.filter(topic=topic).order_by("partition", "offset"))


def test_a_message_becomes_a_request_of_the_user_that_its_key_names(
    any_broker: Broker, ingest: Ingest, ada: User
) -> None:
    topic = any_broker.topic()
    sent = b'{"eventId":"order-1","timestamp":1764300000000,"type":"demo.echo","payload":{"n": 1.50}}'
    any_broker.send(topic, sent, key=ada.username)
    any_broker.send(topic, event(2), key=str(ada.id))
    any_broker.flush()
    ingest(any_broker, topic, lambda: len(requests_of(ada)) == 2)
    first, second = requests_of(ada)
    assert (first.kind, first.payload, second.payload, first.seq) == ("demo.echo", {"n": 1.5}, 2, 1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload::text FROM queues_request WHERE id = %s", [first.id])
        assert cursor.fetchone() == ('{"n": 1.50}',)
    assert first.trace.startswith("kafka-requests-")
    assert set(Event.objects.values_list("request_id", flat=True)) == {first.id, second.id}
    ingest(any_broker, topic, lambda: any_broker.committed(topic, f"{topic}-readers") == 2)


def test_an_event_makes_one_request_for_ever(any_broker: Broker, ingest: Ingest, ada: User, other_group: str) -> None:
    topic = any_broker.topic()
    for number in range(50):
        value = event(number % 25, eventId=f"{topic}-{number % 25}", timestamp=1)
        any_broker.send(topic, value, key=ada.username)
    any_broker.flush()
    ingest(any_broker, topic, lambda: any_broker.committed(topic, f"{topic}-readers") == 50)
    assert payloads_of(ada) == list(range(25))
    Request.objects.all().delete()
    ingest(any_broker, topic, lambda: any_broker.committed(topic, other_group) == 50, other_group)  # from the beginning
    assert not Request.objects.exists()
    assert not rejected(topic)


def test_what_a_restored_postgresql_forgot_is_accepted_again_once_and_in_order(
    mock: Broker, ingest: Ingest, ada: User, other_group: str
) -> None:
    """Read again from before what was lost; here from the beginning."""
    topic = mock.topic()
    for number in range(6):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 6)
    kept, lost = requests_of(ada)[:4], requests_of(ada)[4:]
    Event.objects.filter(request_id__in=[request.id for request in lost]).delete()
    Request.objects.filter(queue__user=ada, seq__gt=4).delete()
    UserQueue.objects.filter(user=ada).update(last_seq=4)
    ingest(mock, topic, lambda: mock.committed(topic, other_group) == 6, other_group)
    assert payloads_of(ada) == list(range(6))
    assert requests_of(ada)[:4] == kept
    assert not rejected(topic)


def test_an_id_that_comes_again_with_something_else_is_not_lost(mock: Broker, ingest: Ingest, ada: User) -> None:
    topic = mock.topic()
    once = event(1)
    for value, key in ((once, ada), ({**once, "payload": 2}, ada), (once, new_user()), (once, ada)):
        mock.send(topic, value, key=key.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 4)
    assert payloads_of(ada) == [1]
    kept = rejected(topic)
    assert [(one.offset, one.reason) for one in kept] == [(1, "event_id_reused"), (2, "event_id_reused")]
    assert str(requests_of(ada)[0].id) in kept[0].detail


def test_the_user_may_stand_in_a_header(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "kafka_user", "header:user")
    topic = mock.topic()
    mock.send(topic, event(1), headers=[("user", b"nobody"), ("user", ada.username.encode())])
    mock.flush()
    ingest(mock, topic, lambda: requests_of(ada))


def test_the_user_may_stand_in_the_payload(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "kafka_user", "payload:customer.login")
    topic = mock.topic()
    mock.send(topic, event({"customer": {"login": ada.username}}))
    mock.flush()
    ingest(mock, topic, lambda: requests_of(ada))


def test_the_order_of_a_partition_is_the_order_of_each_of_its_users(mock: Broker, ingest: Ingest) -> None:
    topic = mock.topic()
    users = [new_user() for _ in range(10)]
    for number in range(2_000):
        mock.send(topic, event(number), key=users[number * 7 % 10].username)
    mock.flush()
    ingest(mock, topic, lambda: Request.objects.count() == 2_000)
    for at, user in enumerate(users):
        assert payloads_of(user) == [number for number in range(2_000) if number * 7 % 10 == at]


def test_a_full_queue_holds_up_its_own_user_alone(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, bob = mock.topic(), new_user()
    monkeypatch.setattr(settings.ENV, "waiting_limit", 3)
    for number in range(10):
        mock.send(topic, event(number), key=ada.username)
    mock.send(topic, event(1), key=bob.username)
    mock.flush()
    ingest(mock, topic, lambda: len(requests_of(ada)) == 3 and requests_of(bob))
    assert payloads_of(ada) == [0, 1, 2]
    monkeypatch.setattr(settings.ENV, "waiting_limit", 7)
    ingest(mock, topic, lambda: len(requests_of(ada)) == 7)
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 7)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 100)
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 11)
    assert payloads_of(ada) == list(range(10))
    assert not rejected(topic)


def test_a_partition_of_which_too_much_waits_is_paused_until_there_is_room(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = mock.topic()
    monkeypatch.setattr(partitions, "MOST_HELD", 20)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 5)
    for number in range(30):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: counted("kafka_paused_partitions") == 1 and counted("kafka_held_messages") == 25)
    for number in range(30, 60):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    monkeypatch.setattr(settings.ENV, "waiting_limit", 1000)
    ingest(mock, topic, lambda: len(requests_of(ada)) == 60)
    assert payloads_of(ada) == list(range(60))


def test_a_locked_queue_holds_up_its_own_user_alone(mock: Broker, ingest: Ingest, ada: User) -> None:
    topic, bob = mock.topic(), new_user()
    mock.send(topic, event(0), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: requests_of(ada))
    with frozen(QUEUE, queue_of(ada).id):
        for number in (1, 2):
            for user in (ada, bob):
                mock.send(topic, event(number), key=user.username)
        mock.flush()
        ingest(mock, topic, lambda: len(requests_of(bob)) == 2)
        assert len(requests_of(ada)) == 1
    ingest(mock, topic, lambda: payloads_of(ada) == [0, 1, 2])


def test_what_waits_of_a_user_who_is_gone_is_rejected(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = mock.topic()
    monkeypatch.setattr(settings.ENV, "waiting_limit", 1)
    for number in range(3):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: requests_of(ada))
    User.objects.filter(id=ada.id).update(is_active=False)
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 3)
    kept = [(one.offset, one.reason) for one in rejected(topic)]
    assert kept == [(1, "unknown_user"), (2, "unknown_user")]


def test_a_postgresql_that_goes_away_loses_nothing_and_doubles_nothing(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = mock.topic()
    monkeypatch.setattr("processing.kafka.ingester.AWAY_SECONDS", 0.05)
    monkeypatch.setattr("processing.kafka.ingester.GROUP", 100)
    for number in range(900):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    rounds = iter(range(10_000))

    def with_interruptions() -> bool:
        if next(rounds) % 3 == 0 and len(payloads_of(ada)) < 900:
            connection.connection.close()  # as a server that stops does
        return Request.objects.count() == 900 if connection.is_usable() else bool(connection.close())

    ingest(mock, topic, with_interruptions)
    assert payloads_of(ada) == list(range(900))
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 900)


def test_a_commit_whose_answer_is_lost_doubles_nothing(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = mock.topic()
    accept, lost = Ingester._accept, iter([True, False, True])

    def and_lose(self: Ingester, group: Any) -> Any:
        settled = accept(self, group)
        if next(lost, False):
            raise OperationalError("the connection is lost")
        return settled

    monkeypatch.setattr(Ingester, "_accept", and_lose)
    monkeypatch.setattr("processing.kafka.ingester.AWAY_SECONDS", 0.01)
    for number in range(5):
        mock.send(topic, event(number), key=ada.username)
    mock.send(topic, b"{", key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 6)
    assert payloads_of(ada) == list(range(5))
    assert len(rejected(topic)) == 1


def test_what_postgresql_refuses_is_set_aside_and_the_others_go_on(mock: Broker, ingest: Ingest, ada: User) -> None:
    topic, bob = mock.topic(), new_user()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE queues_request ADD CONSTRAINT no_seven CHECK (payload::text <> '7')")
    try:
        for number in range(20):
            mock.send(topic, event(number), key=(ada, bob)[number % 2].username)
        mock.flush()
        ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 20)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE queues_request DROP CONSTRAINT no_seven")
    assert payloads_of(ada) == list(range(0, 20, 2))
    assert payloads_of(bob) == [number for number in range(1, 20, 2) if number != 7]
    assert [(one.offset, one.reason) for one in rejected(topic)] == [(7, "refused")]


def test_what_postgresql_refuses_is_kept_before_its_offset_is_committed(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = mock.topic()
    committed: list[tuple[int, int]] = []
    store = Ingester._store

    def and_look(self: Ingester) -> None:
        committed.extend((one.done, len(rejected(topic))) for one in self.partitions.values())
        store(self)

    monkeypatch.setattr(Ingester, "_store", and_look)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE queues_request ADD CONSTRAINT no_seven CHECK (payload::text <> '7')")
    try:
        mock.send(topic, event(7), key=ada.username)
        mock.flush()
        ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 1)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE queues_request DROP CONSTRAINT no_seven")
    assert (0, 0) in committed
    assert (1, 0) not in committed


def test_an_id_is_kept_in_16_bytes_however_long_it_is(mock: Broker, ingest: Ingest, ada: User) -> None:
    topic, id_ = mock.topic(), uuid4()
    for event_id in (str(id_), str(id_).upper(), "x" * 255):
        mock.send(topic, event(1, eventId=event_id, timestamp=1), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 3)
    assert len(payloads_of(ada)) == 2
    assert id_ in Event.objects.values_list("id", flat=True)
