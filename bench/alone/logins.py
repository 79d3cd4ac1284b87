"""How long others wait for their 202 while 24 clients log in at once, beside nobody logging in."""

import http.client
import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles
from typing import Any

from accounts.models import Session, User
from bench.loads.accept import BODY, listening
from bench.place import Place
from bench.report import Report, milliseconds
from bench.users import users
from scripts.place import free_port
from scripts.run.application import services

CLIENTS = 24
EVERY = 0.01  # seconds between two submissions
PASSWORD = "four-random-words-here"


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Submissions at an even pace, in rounds: alone, then while the clients log in as Retry-After lets them."""
    rounds, count = (1, 300) if quick else (5, 500)
    port = free_port()
    command = next(service.command for service in services(port) if service.name == "api")
    api = here.start("api", command, FAILED_LOGINS_PER_MINUTE="100000")
    submitter = User.objects.get(id=users(here, "quiet", 1)[0])
    token = Session.open(submitter).access
    for number in range(CLIENTS):
        User.objects.create_user(f"login-{number}", password=PASSWORD)
    listening(port, "/api/v1/requests")
    submitted(port, token, count)
    alone, beside, answers = [], [], Counter[int]()
    for _ in range(rounds):
        alone += submitted(port, token, count)
        with logging_in(port, answers):
            beside += submitted(port, token, count)
    here.stop(api)
    table = report.table("logins: submissions at an even pace", "beside", "p50", "p99")
    for what, latencies in (("nobody", alone), (f"{CLIENTS} who log in at once", beside)):
        cuts = quantiles(latencies, n=100, method="inclusive")
        table.add_row(what, milliseconds(cuts[49]), milliseconds(cuts[98]))
    report.show(table)
    report.say(f"The logins were answered {dict(answers)}.")
    p99 = [quantiles(latencies, n=100, method="inclusive")[98] for latencies in (alone, beside)]
    report.verdict("logins: 1.5 x p99 alone beside p99 with them", 1.5 * p99[0] / p99[1], 1.0)


def submitted(port: int, token: str, count: int) -> list[float]:
    """The latencies of so many submissions."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps(BODY)
    latencies = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("POST", "/api/v1/requests", body, headers)
        answer = connection.getresponse()
        answer.read()
        latencies.append(time.perf_counter() - began)
        if answer.status != 202:
            raise RuntimeError(f"a submission was answered {answer.status}")
        time.sleep(EVERY)
    connection.close()
    return latencies


@contextmanager
def logging_in(port: int, answers: "Counter[int]") -> Iterator[None]:
    """All clients log in, in a process of their own: threads here would wait for theirs, and measure that."""
    forked = multiprocessing.get_context("fork")
    over, told = forked.Event(), forked.SimpleQueue()
    clients = forked.Process(target=log_in_at_once, args=(port, over, told))
    clients.start()
    try:
        yield
    finally:
        over.set()
        answers.update(told.get())
        clients.join()


def log_in_at_once(port: int, over: Any, told: Any) -> None:
    """All clients, each in a thread, until it is over; then how often each status was answered."""
    answers: Counter[int] = Counter()
    clients = [threading.Thread(target=log_in, args=(port, n, answers, over)) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    told.put(dict(answers))


def log_in(port: int, number: int, answers: "Counter[int]", over: Any) -> None:
    """Log in until it is over, after a 503 when it says."""
    body = json.dumps({"username": f"login-{number}", "password": PASSWORD})
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/api/v1/auth/token", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        answers[answer.status] += 1
        if answer.status == 503:
            over.wait(int(answer.headers["Retry-After"]))
