"""Rejected messages in the admin: operators see and replay them, viewers see them."""

import json

import pytest

from accounts.models import SecurityEvent, User
from processing.kafka.models import RejectedMessage
from processing.kafka.reading import Message, Rejection
from processing.kafka.rejected import keep
from tests.client import Client
from tests.processing.crew import new_user, requests_of
from tests.processing.kafka.brokers import event
from tests.staff import confirm, make_groups, member_of

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/admin/kafka/rejectedmessage/"


def test_operators_replay_in_the_admin(client: Client) -> None:
    keep([(Message("requests", 0, 5, b"lovelace", b'{"eventId": "<b>"}'), Rejection("invalid", "timestamp: .."))])
    value = json.dumps(event("x")).encode()
    keep([(Message("requests", 0, 6, b"lovelace", value), Rejection("unknown_user", "nobody"))])
    lovelace = User.objects.create(username="lovelace")
    client.force_login(User.objects.create_superuser("root"))
    first, second = RejectedMessage.objects.order_by("offset")
    assert "&lt;b&gt;" in client.get(f"{PAGE}{first.id}/change/").content.decode()
    assert client.get(f"{PAGE}?reason=invalid").status_code == 200
    asked = {"action": "replay", "_selected_action": [str(first.id), str(second.id)]}
    named = client.post(PAGE, asked).context["named"]
    assert named == ["requests/0/6, unknown_user: nobody", "requests/0/5, invalid: timestamp: .."]
    assert not requests_of(lovelace), "nothing is done before it is confirmed"
    confirm(client, PAGE, asked)
    [made] = requests_of(lovelace)
    assert made.payload == "x"
    told = f"changed kafka.RejectedMessage {second.id}: replayed as request {made.id}: ticket 4711"
    assert SecurityEvent.objects.filter(event="staff_action").latest("id").detail == told
    first.refresh_from_db()
    assert first.replayed_at is None
    assert "timestamp: This field is required." in first.detail
    assert client.get(f"{PAGE}add/").status_code == 403
    viewer = User.objects.create_user("viewer", is_staff=True)
    client.force_login(viewer)
    assert client.post(PAGE, {"action": "replay", "_selected_action": [str(first.id)]}).status_code == 403


@pytest.mark.parametrize(("group", "replays"), [("viewer", False), ("operator", True), ("admin", True)])
def test_each_group_does_what_it_may(group: str, replays: bool) -> None:
    make_groups()
    client = member_of(group)
    user = new_user()
    value = json.dumps(event("x")).encode()
    keep([(Message("requests", 0, 1, user.username.encode(), value), Rejection("unknown_user", "nobody"))])
    row = RejectedMessage.objects.get()
    assert list(client.get(PAGE).context["cl"].result_list) == [row]
    assert client.get(f"{PAGE}{row.id}/change/").status_code == 200
    asked = {"action": "replay", "_selected_action": [str(row.id)]}
    assert confirm(client, PAGE, asked).status_code == (302 if replays else 403)
    assert len(requests_of(user)) == replays
