"""Each user's requests run one after another in the order of their sequence numbers, whatever happens around them."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts.models import User
from processing.broker.pointers import Pointer
from processing.dispatch import dispatcher
from processing.worker import drain, next_queues
from processing.worker.watchdog import Watchdog
from queues.lifecycle import lease
from queues.models import Request, UserQueue
from queues.sql import protocol
from queues.sql.statement import Statement
from tests.processing.crew import Crew, Wire, all_done, new_user, queue_of, submit
from tests.processing.journal import Journal
from tests.waiting import until

_numbers = itertools.count()
chance = random.Random()

# What a user sends at once: how long each request takes (ms), and how many of its attempts fail.
sent = st.tuples(st.sampled_from([0, 0, 0, 1, 4]), st.sampled_from([0] * 9 + [1, 2]))
batches = st.lists(sent, min_size=1, max_size=12)
trouble = st.sampled_from(["duplicate", "all again", "forget", "token", "early", "garbage"])
worlds = st.fixed_dictionaries(
    {
        "users": st.lists(st.lists(batches, min_size=1, max_size=5), min_size=2, max_size=5),
        "troubles": st.lists(st.tuples(st.integers(0, 4), trouble), min_size=5, max_size=40),
        "turn_requests": st.sampled_from([1, 3, 500]),
        "dispatchers": st.sampled_from([1, 2]),
    }
)


def in_threads(*functions: Callable[[], None]) -> None:
    """Run all at once; what one of them raises is raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def send(user: User, journal: Journal, batches: list[list[tuple[int, int]]]) -> None:
    for batch in batches:
        submit(user, *[journal.payload(ms, fails) for ms, fails in batch], kind="test.journal")
        time.sleep(chance.uniform(0, 0.01))


def make(trouble: str, user: User, wire: Wire) -> None:
    """What a lost answer, a second dispatcher, a restored backup or a stranger does to a user's RabbitMQ queue."""
    queue = queue_of(user)
    if trouble == "duplicate" and queue.last_seq:
        first = chance.randint(1, queue.last_seq)
        wire.publish(queue.id, *[Pointer(first, chance.randint(first, queue.last_seq)).encode()] * 2)
    elif trouble == "all again":
        wire.publish(queue.id, *[Pointer(seq, seq).encode() for seq in range(1, queue.last_seq + 1)])
    elif trouble == "forget":
        UserQueue.objects.filter(id=queue.id, state__in=["ready", "waiting"]).update(published_seq=F("done_seq"))
    elif trouble == "token":
        wire.put_token(*[queue.id] * 3)
    elif trouble == "early":
        wire.publish(queue.id, Pointer(queue.last_seq + 3, queue.last_seq + chance.randint(3, 9)).encode())
    elif trouble == "garbage":
        wire.publish(queue.id, b"", b"what is this?", bytes(24), b"x" * 1000)


def live(world: dict, journal: Journal, wire: Wire) -> dict[str, int]:
    """Everybody sends what they have while the troubles happen; how many requests each user sent."""
    users = [new_user() for _ in world["users"]]
    for user, first in zip(users, world["users"], strict=True):
        submit(user, *[journal.payload(ms, fails) for ms, fails in first[0]], kind="test.journal")

    def cause_trouble() -> None:
        others = Wire()
        for number, trouble in world["troubles"]:
            make(trouble, users[number % len(users)], others)
            time.sleep(chance.uniform(0, 0.01))
        others.close()

    with Crew(workers=4, dispatchers=world["dispatchers"]):
        in_threads(
            cause_trouble,
            *[
                lambda user=user, batches=batches: send(user, journal, batches[1:])
                for user, batches in zip(users, world["users"], strict=True)
            ],
        )
        until(all_done, 40, "everything is finished")
    return {
        str(user.id): sum(len(batch) for batch in batches) for user, batches in zip(users, world["users"], strict=True)
    }


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # threads do not happen again as they did
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(world=worlds)
def test_every_users_requests_run_in_order_and_one_at_a_time(
    world: dict, watch: Watchdog, wire: Wire, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / str(next(_numbers)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(django_settings.ENV, "turn_requests", world["turn_requests"])
        patch.setattr(dispatcher, "LOOK_SECONDS", 0.01)
        accepted = live(world, journal, wire)
    assert journal.violations(accepted) == []
    finished = Request.objects.filter(queue__user__in=list(accepted)).values_list("status", flat=True)
    assert set(finished) <= {"succeeded"}


def test_the_journal_finds_what_a_lease_without_its_guard_does(
    watch: Watchdog, wire: Wire, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same world with leases given to everybody who asks: the test above can fail."""
    guard = "state = 'ready' AND done_seq"
    assert guard in protocol.LEASE_TOGETHER.text
    unguarded = Statement(protocol.LEASE_TOGETHER.text.replace(guard, "done_seq"))
    monkeypatch.setattr(lease, "LEASE_TOGETHER", unguarded)
    monkeypatch.setattr(next_queues._together, "ask", next_queues._take_each)  # or one of two who ask at once has it
    world = {
        "users": [[[(4, 0)] * 12, [(4, 0)] * 12]],
        "troubles": [(0, "token"), (0, "all again")] * 10,
        "turn_requests": 500,
        "dispatchers": 1,
    }
    accepted = live(world, journal, wire)
    assert [wrong for wrong in journal.violations(accepted) if "while" in wrong or "after" in wrong]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["begin 1", "end 1", "begin 2", "end 2"], None),
        (["begin 1", "fail 1", "begin 1", "end 1", "begin 2", "end 2"], None),
        (["begin 1", "end 1", "begin 1", "end 1", "begin 2", "end 2"], "1 began after 1"),
        (["begin 1", "begin 2", "end 1", "end 2"], "2 began while 1 ran"),
        (["begin 2", "end 2", "begin 1", "end 1"], "2 began after 0"),
        (["begin 1", "fail 1", "begin 2", "end 2"], "2 began after 0"),
        (["begin 1", "end 1"], "1 of 2"),
        (["begin 1", "end 1", "begin 2"], "1 of 2"),
    ],
)
def test_the_journal_tells_right_from_wrong(journal: Journal, lines: list[str], wrong: str | None) -> None:
    text = ""
    for number, line in enumerate(lines):
        what, seq = line.split()
        text += f"{what} alice {seq} 1 {number} 7\n"
    Path(journal.path).write_text(text)
    found = journal.violations({"alice": 2})
    assert (wrong is None and not found) or any(wrong in one for one in found if wrong)


def test_one_user_at_a_time_however_many_tokens_there_are(watch: Watchdog, wire: Wire, journal: Journal) -> None:
    user = new_user()
    submit(user, *[journal.payload(ms=1)] * 60, kind="test.journal")
    with Crew(workers=6):
        until(lambda: queue_of(user).published_seq, 10)
        for _ in range(20):
            wire.put_token(*[queue_of(user).id] * 10)
            time.sleep(0.005)
        until(all_done, 30)
    assert journal.violations({str(user.id): 60}) == []
    assert queue_of(user).fence < 40, "a token for a queue that is being drained gives nobody a turn"


def test_bob_never_waits_for_alice(
    watch: Watchdog, wire: Wire, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, and a flood of alice's: bob's first request waits for one of her turns at the most."""
    monkeypatch.setattr(django_settings.ENV, "turn_seconds", 0.2)
    alice, bob = new_user(), new_user()
    submit(alice, *[journal.payload(ms=5)] * 400, kind="test.journal")
    waited: list[float] = []
    with Crew(workers=1):
        until(lambda: queue_of(alice).done_seq > 5, 10)
        for _ in range(3):
            sent = time.monotonic()
            submit(bob, journal.payload(), kind="test.journal")
            begun = until(partial(journal.begun, bob, since=sent), 10)
            waited.append(begun[0].at - sent)
        flooded = queue_of(alice)
        assert flooded.done_seq < flooded.last_seq, "the flood is over: nothing was shown"
    print("bob waited", ", ".join(f"{seconds * 1000:.0f} ms" for seconds in waited), "with turns of 200 ms")
    assert min(waited) < 0.2 + 0.3
    assert drain.watch is watch
