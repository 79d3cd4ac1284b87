"""What operators do in the admin, and what its pages say of a queue."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command

from accounts.models import User
from queues.lifecycle import control
from queues.models import Request, UserQueue
from queues.states import QueueState, Status
from tests.client import Client
from tests.queues.admin.conftest import QUEUES, REQUESTS, act, ask, chosen
from tests.queues.api import Caller
from tests.queues.rows import a_long_story, queue_of, request_in

pytestmark = pytest.mark.django_db


def test_operators_control_with_the_verbs_of_the_api(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    final, waiting = queue.requests.get(seq=1), queue.requests.get(seq=9)
    page = act(operator, REQUESTS, "cancel", final, waiting)
    assert "1 skipped: The request is succeeded already." in page
    assert "1 cancelled, or asked to stop" in page
    waiting.refresh_from_db()
    assert waiting.status == "cancelled"
    act(operator, REQUESTS, "retry", waiting)
    assert "It was tried again already." in act(operator, REQUESTS, "retry", waiting)
    assert Request.objects.filter(retry_of=waiting).count() == 1
    assert "A worker has the queue" in act(operator, QUEUES, "republish", queue)
    act(operator, QUEUES, "pause", queue)
    assert UserQueue.objects.get().paused_by == "the-operator: ticket 4711"
    act(operator, QUEUES, "resume", queue)
    act(operator, QUEUES, "purge", queue)
    assert not UserQueue.objects.get().paused
    assert not queue.requests.filter(finished_at=None).exclude(seq=8).exists()
    assert {(entry.user.username, entry.change_message.partition(": ")[2]) for entry in LogEntry.objects.all()} == {
        ("the-operator", "ticket 4711")
    }
    assert LogEntry.objects.count() == 5


def test_a_blocked_queue_is_skipped_by_its_head(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=2, published_seq=2, state=QueueState.BLOCKED)
    error = {"type": "PaperJam", "message": "The <printer> is jammed.", "at": "2026-11-28T12:00:00+00:00"}
    head = request_in(queue, 1, Status.RETRYING, attempt=3, error=error)
    request_in(queue, 2, Status.QUEUED)
    page = ask(operator, QUEUES, "skip", queue)
    assert page.context["whose"] == [("bob-the-builder", 1, 1)], "the head alone, whatever waits behind it"
    for told in (str(head.pk), "demo.echo", "PaperJam: The &lt;printer&gt; is jammed."):
        assert told in page.content.decode()
    assert str(head.pk) in ask(operator, REQUESTS, "skip", head).content.decode()
    assert "1 skipped" in act(operator, QUEUES, "skip", queue)
    head.refresh_from_db()
    assert head.status == "failed"


def test_all_that_failed_is_tried_again_in_order_at_the_tail_and_once(operator: Client, bob: User) -> None:
    alice = User.objects.create_user("alice")
    for user in (bob, alice):
        queue = queue_of(user, last_seq=4, published_seq=4, done_seq=4)
        for seq in (3, 1, 2):  # ids in another order than the places
            request_in(queue, seq, Status.FAILED, payload={"n": seq})
        request_in(queue, 4, Status.SUCCEEDED)
    queues = list(UserQueue.objects.all())
    page = ask(operator, QUEUES, "retry_failed", *queues)
    assert sorted(page.context["whose"]) == [("alice", 3, 3), ("bob-the-builder", 3, 3)]
    assert "6 tried again" in act(operator, QUEUES, "retry_failed", *queues)
    for queue in queues:
        again = Request.objects.filter(queue=queue, seq__gt=4).order_by("seq")
        assert [(one.seq, one.payload["n"]) for one in again] == [(5, 1), (6, 2), (7, 3)]
    everything = {"select_across": "1", "_selected_action": ["1"]}
    refused = act(operator, f"{REQUESTS}?status=failed&kind=demo.echo", "retry", **everything)
    assert "6 skipped: It was tried again already." in refused


def test_the_queues_page_says_what_runs_what_waits_and_who_paused_it(viewer: Client, bob: User) -> None:
    queue = a_long_story(bob)
    control.pause(queue.id, "ada: ticket 4711")
    page = viewer.get(f"{QUEUES}{queue.id}/change/")
    shown = page.context["page"]
    assert [one.seq for one in shown.runs] == [8]
    assert [one.seq for one in shown.waiting] == [9, 10, 12]
    assert [one.seq for one in shown.history] == [7, 6, 5, 4, 3, 2, 1]
    said = page.context["page"].reasons[0]
    assert said.endswith(
        "by ada: ticket 4711. Nothing further starts until an operator resumes it: its owner cannot; accepting goes on."
    )
    assert said in page.content.decode()
    control.resume(queue.id, operator=True)
    assert UserQueue.objects.get().paused_by == ""
    control.pause(queue.id)
    (said, _) = viewer.get(f"{QUEUES}{queue.id}/change/").context["page"].reasons[:2]
    assert said.endswith("by its owner. Nothing further starts until it is resumed; accepting goes on.")


def test_what_an_operator_pauses_here_only_an_operator_resumes(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    owner = Caller(bob)
    act(operator, QUEUES, "pause", queue)
    assert owner.post("queue/resume").status == 409
    assert "1 resumed" in act(operator, QUEUES, "resume", queue)
    assert owner.get("queue").json["paused"] is False


def test_the_queues_page_shows_a_hundred_and_leads_to_the_next(viewer: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=150)
    for seq in range(1, 151):
        request_in(queue, seq, Status.QUEUED)
    path = f"{QUEUES}{queue.id}/change/"
    first = viewer.get(path)
    assert [one.seq for one in first.context["page"].waiting] == list(range(1, 101))
    assert "?after=100" in first.content.decode()
    assert [one.seq for one in viewer.get(f"{path}?after=100").context["page"].waiting] == list(range(101, 151))
    for after in ("x", "-1", "9" * 30, "\u0661"):
        assert viewer.get(path, {"after": after}).status_code == 200
    for missing in ("0", "x", "9" * 30):
        assert viewer.get(f"{QUEUES}{missing}/change/").status_code == 302


def test_a_command_says_who_paused_it_too(bob: User) -> None:
    queue_of(bob)
    call_command("queue", "pause", "bob-the-builder", "--yes", "--reason", "ticket 4711")
    paused = UserQueue.objects.get()
    assert re.fullmatch(r".+@.+: ticket 4711", paused.paused_by)
    assert paused.operator_paused


def test_a_row_is_controlled_from_its_own_page(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    page = operator.get(f"{QUEUES}{queue.id}/change/").content.decode()
    assert 'value="pause"' in page
    assert 'value="limit"' not in page
    token = ask(operator, QUEUES, "pause", queue, back="1").context["confirmed"]
    done = operator.post(QUEUES, chosen("pause", queue, back="1", confirmed=token, reason="x"))
    assert done["Location"] == f"{QUEUES}{queue.id}/change/"


def buttons(client: Client, path: str) -> set[str]:
    return {name for name, _, _ in client.get(path).context["buttons"]}


def test_a_page_offers_only_what_can_be_done_now(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    page = f"{QUEUES}{queue.id}/change/"
    assert buttons(operator, page) == {"pause"}
    head = request_in(queue, 1, Status.QUEUED, attempt=1)
    failed = request_in(queue_of(bob, last_seq=1, published_seq=1, state="blocked"), None, Status.FAILED)
    assert buttons(operator, page) == {"pause", "purge", "republish", "skip", "retry_failed"}
    assert buttons(operator, f"{REQUESTS}{head.pk}/change/") == {"cancel", "retry", "skip"}
    assert buttons(operator, f"{REQUESTS}{failed.pk}/change/") == {"retry"}
    control.pause(queue.id, "root: ticket 4711")
    assert buttons(operator, page) == {"resume", "purge", "republish", "skip", "retry_failed"}


@pytest.mark.parametrize("state", QueueState.values)
def test_every_state_is_told_in_words(viewer: Client, bob: User, state: str) -> None:
    wake = {"wake_at": "2026-11-21T00:00:00Z"} if state == "waiting" else {}
    queue = queue_of(bob, last_seq=1, published_seq=state != "idle", state=state, **wake)
    request_in(queue, 1, Status.QUEUED, attempt=1)
    assert len(viewer.get(f"{QUEUES}{queue.id}/change/").context["page"].reasons) >= 1
