"""Taking requests in, from many threads at once: places without gaps, limits that hold, all of a batch or nothing."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Session, User
from queues import kinds
from queues.enqueue.accept import accept
from queues.exceptions import QueueFull, SessionOver
from queues.models import Request, UserQueue
from queues.values import Accepted, Submission
from tests.processing.crew import new_user, queue_of
from tests.queues.threads import at_once, in_thread, wait_for_a_lock


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


def ask(user: User, *payloads: str, session: Session | None = None, **fields: Any) -> list[Accepted]:
    echo = kinds.find("demo.echo")
    session_id = session.id if session else None
    return accept(user.id, [Submission(echo, payload, **fields) for payload in payloads], session_id=session_id)


def accepted_or_full(user: User, *payloads: str, **fields: Any) -> int:
    try:
        return len(ask(user, *payloads, **fields))
    except QueueFull:
        return 0


def seqs(user: User) -> list[int | None]:
    return list(Request.objects.filter(queue__user=user).order_by("seq").values_list("seq", flat=True))


def test_many_at_once_get_places_without_gaps_each_in_its_own_order(user: User) -> None:
    """The first of them has to make the queue, too: they race for that."""

    def send(_: int) -> list[int]:
        return [accepted.seq for n in range(10) for accepted in ask(user, str(n)) if accepted.seq]

    sent = at_once(8, send)
    assert seqs(user) == list(range(1, 81))
    assert all(places == sorted(places) for places in sent)
    assert sorted(place for places in sent for place in places) == list(range(1, 81))
    queue = queue_of(user)
    assert (queue.last_seq, queue.published_seq, queue.done_seq) == (80, 0, 0)


def test_a_batch_takes_places_side_by_side_in_the_order_given(user: User) -> None:
    places = at_once(6, lambda _: [a.seq for a in ask(user, *"01234")])
    assert all(batch == list(range(batch[0], batch[0] + 5)) for batch in places)
    assert seqs(user) == list(range(1, 31))
    first = Request.objects.filter(queue__user=user).order_by("seq")[:5]
    assert [request.payload for request in first] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 3])
def test_a_queue_is_full_exactly_at_its_limit(user: User, size: int) -> None:
    UserQueue.objects.create(user=user, waiting_limit=20)
    taken = at_once(8, lambda _: sum(accepted_or_full(user, *["1"] * size) for _ in range(6)))
    assert sum(taken) == 20 // size * size
    assert seqs(user) == list(range(1, sum(taken) + 1)), "a batch that did not fit left nothing behind"
    UserQueue.objects.filter(user=user).update(published_seq=5, done_seq=5, state="ready")
    assert accepted_or_full(user, *["1"] * size) == size, "what is done makes room"


@pytest.mark.parametrize("has_queue", [True, False])
def test_the_scheduled_are_limited_exactly_too(user: User, has_queue: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings

    monkeypatch.setattr(settings.ENV, "waiting_limit", 5)
    if has_queue:
        UserQueue.objects.create(user=user)
    later = timezone.now() + timedelta(hours=1)
    taken = at_once(8, lambda _: sum(accepted_or_full(user, "1", not_before=later) for _ in range(2)))
    assert sum(taken) == 5
    assert Request.objects.filter(queue__user=user, status="scheduled", seq=None).count() == 5
    assert accepted_or_full(user, "1") == 1, "they have no place in line yet"


def test_an_ended_session_and_an_inactive_user_are_refused(user: User) -> None:
    session = Session.objects.create(user=user, refresh_jti="x")
    assert ask(user, "1", session=session)
    session.end()
    with pytest.raises(SessionOver):
        ask(user, "1", session=session)
    others = Session.objects.create(user=new_user(), refresh_jti="y")
    with pytest.raises(SessionOver):
        ask(user, "1", session=others)
    User.objects.filter(id=user.id).update(is_active=False)
    with pytest.raises(SessionOver):
        ask(user, "1")
    assert seqs(user) == [1]


def test_a_session_is_not_refused_because_the_queue_is_full(user: User) -> None:
    UserQueue.objects.create(user=user, waiting_limit=1)
    session = Session.objects.create(user=user, refresh_jti="x")
    ask(user, "1", session=session)
    with pytest.raises(QueueFull, match="1 requests are waiting; the limit is 1"):
        ask(user, "1", session=session)


def test_accepting_waits_for_no_other_user(user: User) -> None:
    from django.db import transaction

    other = new_user()
    ask(user, "1")
    with transaction.atomic():
        UserQueue.objects.select_for_update().get(user=user)
        assert in_thread(lambda: len(ask(other, "1")))() == 1
        waits = in_thread(lambda: ask(user, "2")[0].seq)
        in_thread(wait_for_a_lock)()  # in a transaction of one's own, nothing new is seen
        UserQueue.objects.filter(user=user).update(last_seq=1)
    assert waits() == 2


def test_a_payload_is_kept_to_the_letter(user: User) -> None:
    text = '{"b": 1e300, "a": 1.10, "nul": "\\u0000", "a": 2, "deep": [[[]]], "é": "\\ud83d\\ude00"}'
    (accepted,) = ask(user, text)
    from django.db.models import TextField
    from django.db.models.functions import Cast

    kept = Request.objects.filter(id=accepted.submission.id).values_list(Cast("payload", TextField()), flat=True)
    assert list(kept) == [text]
