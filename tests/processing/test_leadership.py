"""Who leads, and for how long: one that makes no progress is succeeded within 5 s, and knows it when it returns."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.db.models.functions import Now

from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import Publisher
from queues.lifecycle import leadership
from queues.lifecycle.leadership import Leadership as Claim
from queues.models import Leadership
from scripts.place import ROOT, free_port
from tests.processing.crew import Hand, new_dispatcher, new_user, queue_of, submit
from tests.processing.frozen import LEADERSHIP, frozen
from tests.waiting import until

RUN = Path(__file__).parent / "run.py"
START_SECONDS = 90
SUCCEEDED_SECONDS = 5.0


def leader() -> int | None:
    """The process that leads."""
    row = Leadership.objects.filter(shard=0, lead_until__gt=Now()).first()
    return None if row is None else int(row.holder.split()[1])


class Dispatchers:
    """Dispatchers in processes of their own."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, how: str = "dispatch", **environ: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            command = [sys.executable, str(RUN), how]
            process = subprocess.Popen(command, env=os.environ | environ, stdout=output, stderr=subprocess.STDOUT)
        self.running.append(process)
        return process

    def lead_and_stand_by(self, **of_leader: str) -> tuple[int, int]:
        """Two processes: one that leads, started with these settings, and one that stands by."""
        first = self.start(**of_leader)
        until(lambda: leader() == first.pid, START_SECONDS)
        second = self.start()
        until(lambda: b"standing by" in self.output.read_bytes(), START_SECONDS)
        return first.pid, second.pid


@pytest.fixture
def dispatchers(hand: Hand, tmp_path: Path) -> Iterator[Dispatchers]:
    started = Dispatchers(tmp_path / "output")
    yield started
    for process in started.running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in started.running:
        process.wait(40)
    print(started.output.read_text())


def gets_through(why: str) -> None:
    """A request accepted now is published by somebody within the time in which a leader is succeeded."""
    user, began = new_user(), time.monotonic()
    submit(user, "note")
    until(lambda: queue_of(user).published_seq == 1, SUCCEEDED_SECONDS, why)
    print(f"{why}: published after {time.monotonic() - began:.2f} s")


def stays(pid: int, seconds: float = 2.0) -> None:
    """That process leads on, whoever else has returned."""
    epoch = Leadership.objects.get(shard=0).epoch
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert leader() in (pid, None)
        time.sleep(0.05)
    assert Leadership.objects.get(shard=0).epoch == epoch


def test_a_frozen_leader_is_succeeded_and_stands_by_when_it_returns(dispatchers: Dispatchers) -> None:
    first, second = dispatchers.lead_and_stand_by()
    os.kill(first, signal.SIGSTOP)
    gets_through("a frozen leader is succeeded")
    assert leader() == second
    os.kill(first, signal.SIGCONT)
    until(lambda: b"another one leads now" in dispatchers.output.read_bytes(), 15)
    stays(second)


@contextmanager
def before_rabbitmq() -> Iterator[tuple[str, Callable[[str], None]]]:
    """A proxy before RabbitMQ: its address, and how it is told what to do."""
    parts = urlsplit(settings.ENV.rabbitmq_url)
    port = free_port()
    command = [sys.executable, "-m", "scripts.chaos.proxy", f"rabbitmq={port}:{parts.port or 5672}"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"

        def tell(do: str) -> None:
            assert proxy.stdin is not None
            assert proxy.stdout is not None
            proxy.stdin.write(json.dumps({"do": do, "name": "rabbitmq"}) + "\n")
            proxy.stdin.flush()
            assert proxy.stdout.readline() == "done\n"

        user = parts.netloc.rpartition("@")[0]
        yield urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}")), tell
        proxy.terminate()


@pytest.mark.parametrize(("fault", "end"), [("refuse", "accept"), ("hold", "release")])
def test_a_leader_without_rabbitmq_is_succeeded_by_one_that_has_it(
    dispatchers: Dispatchers, fault: str, end: str
) -> None:
    with before_rabbitmq() as (url, tell):
        _, second = dispatchers.lead_and_stand_by(RABBITMQ_URL=url)
        tell(fault)
        gets_through(f"a leader cut off from RabbitMQ ({fault}) is succeeded")
        assert leader() == second
        tell(end)
        stays(second)


def test_a_leader_that_ends_in_order_is_succeeded_at_once(dispatchers: Dispatchers) -> None:
    first, second = dispatchers.lead_and_stand_by()
    os.kill(first, signal.SIGTERM)
    assert dispatchers.running[0].wait(20) == 0
    until(lambda: leader() == second, SUCCEEDED_SECONDS)


@pytest.mark.parametrize("where", ["publishing", "sweeping"])
def test_a_defect_is_told_with_its_traceback_and_ends_the_process(dispatchers: Dispatchers, where: str) -> None:
    process = dispatchers.start(f"dispatch-with-a-defect-in-{where}")
    assert process.wait(START_SECONDS) == 1, "whoever supervises it starts another"
    said = dispatchers.output.read_text()
    assert "the dispatcher has a defect" in said
    assert "KeyError" in said
    assert "Traceback" in said


# Without processes


def test_one_leads_until_its_lease_is_over_and_then_another(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Claim(0), Claim(0)
    assert one.take()
    assert not other.free()
    assert not other.take()
    assert one.renew()
    Leadership.objects.update(lead_until=Now())
    assert other.take()
    assert not one.renew(), "it finds out that it was succeeded"
    assert not one.take()
    one.resign()
    assert other.renew(), "who leads no more resigns nothing"
    other.resign()
    assert one.take()


def test_of_many_who_want_to_lead_one_does(hand: Hand) -> None:
    claims = [Claim(0) for _ in range(5)]
    assert [claim.take() for claim in claims].count(True) == 1


def test_the_last_sign_of_a_leader_is_told(hand: Hand) -> None:
    assert leadership.last_sign(1) is None
    first, second = Claim(0), Claim(1)
    assert first.take()
    assert leadership.last_sign(1) == pytest.approx(0, abs=3)
    assert leadership.last_sign(2) is None, "a shard has no leader"
    assert second.take()
    Leadership.objects.filter(shard=1).update(renewed_at=Now() - timedelta(seconds=60))
    assert leadership.last_sign(2) == pytest.approx(60, abs=3)
    assert (leadership.led(1), leadership.led(2)) == (1, 2)
    first.resign()
    assert leadership.last_sign(2) is None
    assert leadership.led(2) == 1


def test_a_leader_whose_row_is_locked_leads_on(hand: Hand) -> None:
    claim = Claim(0)
    assert claim.take()
    with frozen(LEADERSHIP):
        assert claim.renew(), "nobody else can take it either"
        assert not Claim(0).take()


def test_who_has_no_rabbitmq_does_not_take_the_lead(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def away(self: Publisher) -> None:
        asked.append(1)
        raise BrokerUnavailable("as asked for")

    monkeypatch.setattr(Publisher, "answers", away)
    stop = threading.Event()
    dispatcher = new_dispatcher()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(asked) >= 2)
        assert not dispatcher.leading.is_set()
        assert not Leadership.objects.filter(epoch__gt=0).exists()
    finally:
        stop.set()
        thread.join(20)


def test_what_a_leader_has_published_renews_its_lead_only_if_rabbitmq_answers(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = hand.dispatcher
    assert dispatcher.take_lead()
    before = Leadership.objects.get().renewed_at
    assert dispatcher.keep_lead()
    after = Leadership.objects.get().renewed_at
    assert before is not None
    assert after is not None
    assert after > before

    def away(self: Publisher) -> None:
        raise BrokerUnavailable("as asked for")

    monkeypatch.setattr(Publisher, "answers", away)
    dispatcher._renewed = 0.0
    with pytest.raises(BrokerUnavailable):
        dispatcher.keep_lead()
    assert Leadership.objects.get().renewed_at == after
