"""Faults of workers, dispatchers and the API, and handlers that misbehave."""

from collections.abc import Iterator

from scripts.chaos.fault import Place, fault
from scripts.chaos.stack import LEASE_SECONDS


@fault("worker.kill")
def kill_worker(place: Place) -> Iterator[None]:
    """kill -9 of the process that runs handlers; its supervisor starts another."""
    place.stack.kill_children(place.choose("worker"))
    yield


@fault("worker.kill-all", 0.5, 2)
def kill_worker_and_supervisor(place: Place) -> Iterator[None]:
    """kill -9 of both, and nobody starts it again for a while."""
    member = place.choose("worker")
    member.rest = 2.0
    place.stack.kill(member)
    yield
    member.rest = 0.2


@fault("worker.orphan")
def kill_supervisor(place: Place) -> Iterator[None]:
    """kill -9 of the supervisor alone."""
    place.stack.kill(place.choose("worker"), alone=True)
    yield


@fault("worker.freeze", LEASE_SECONDS + 0.5, LEASE_SECONDS + 2)
def freeze_worker(place: Place) -> Iterator[None]:
    """SIGSTOP past its leases, then SIGCONT: a zombie comes back."""
    process = place.choose("worker").process
    if process is not None:
        process.pause()
    yield
    if process is not None:
        process.resume()


@fault("worker.term")
def stop_worker(place: Place) -> Iterator[None]:
    process = place.choose("worker").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


@fault("dispatcher.kill")
def kill_dispatcher(place: Place) -> Iterator[None]:
    place.stack.kill(place.choose("dispatcher"))
    yield


@fault("dispatcher.freeze", 0.5, 2)
def freeze_dispatcher(place: Place) -> Iterator[None]:
    process = place.choose("dispatcher").process
    if process is not None:
        process.pause()
    yield
    if process is not None:
        process.resume()


@fault("dispatcher.term")
def stop_dispatcher(place: Place) -> Iterator[None]:
    process = place.choose("dispatcher").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


@fault("api.kill")
def kill_api(place: Place) -> Iterator[None]:
    place.stack.kill(place.choose("api"))
    yield


@fault("api.term")
def stop_api(place: Place) -> Iterator[None]:
    process = place.choose("api").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


@fault("handler.poison")
def poison(place: Place) -> Iterator[None]:
    """A request that kills its process, once or for ever."""
    place.clients.want("chaos.poison", exits=place.dice.choice([1, 9]))
    yield


@fault("handler.overtime")
def overtime(place: Place) -> Iterator[None]:
    place.clients.want("chaos.overtime")
    place.clients.want("chaos.reject")
    yield


@fault("handler.hang")
def hang(place: Place) -> Iterator[None]:
    """A request whose handler cannot be interrupted."""
    place.clients.want("chaos.hang", ms=7000)
    yield
