"""What the dispatcher's process does beside dispatching: mails, erasures that users asked for, operators' bulk actions.

Each in a thread and on a connection of its own: a mail server or a handler that keeps it waiting delays nobody else.
Every dispatcher may do them: a mail or a group of a bulk action is taken by one, and a user is erased by one.
"""

import threading
from collections.abc import Callable
from uuid import UUID

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from accounts.mail import delivery as mail
from accounts.models import User
from processing.broker.errors import BrokerUnavailable
from processing.dispatch.backoff import Backoff
from processing.dispatch.set_aside import SetAside
from processing.operations.erase import erase
from queues.admin import bulk_steps
from queues.exceptions import NotPossible

log = structlog.get_logger()

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # what runs has so long to end
ROWS_A_STEP = 500


class Chore:
    """Does one thing after another until it is told to stop. What goes wrong is logged, and tried again later."""

    def __init__(self, name: str, step: Callable[[], bool]) -> None:
        self.name = name
        self.step = step  # does one; whether there was one

    def start(self, stop: threading.Event) -> None:
        """In a thread that does not keep the process from ending: what it leaves behind is begun again."""
        threading.Thread(target=self.run, args=(stop,), name=self.name, daemon=True).start()

    def run(self, stop: threading.Event) -> None:
        backoff = Backoff(first=0.5, longest=30.0)
        while not stop.is_set():
            try:
                more = self.step()
                backoff.over()
                if not more:
                    stop.wait(LOOK_SECONDS)
            except Exception as error:
                if isinstance(error, DatabaseError):
                    log.warning("a server is away", what=self.name, error=str(error).strip())
                else:
                    log.exception("a chore failed", what=self.name)
                connection.close()
                backoff.wait(stop)
        connection.close()


class Erasures:
    """Erases users who asked for it, one after another. One who cannot be erased now has their turn later."""

    def __init__(self) -> None:
        self._set_aside: SetAside[UUID] = SetAside(first=5.0, longest=600.0)

    def step(self) -> bool:
        """Erase one; whether there was one to try."""
        for user_id in User.objects.to_erase():
            if not self._set_aside.holds(user_id):
                self._erase(user_id)
                return True
        return False

    def _erase(self, user_id: UUID) -> None:
        self._set_aside.add(user_id)  # whatever becomes of it: others come first before it is tried again
        try:
            user = User.objects.get(id=user_id)
            requests = erase(user, patience=PATIENCE_SECONDS, count=ROWS_A_STEP, by="themselves", tell=_told)
        except (User.DoesNotExist, NotPossible):
            return  # another dispatcher did it, or is at it
        except BrokerUnavailable as error:
            log.warning("an erasure waits for RabbitMQ", user=str(user_id), error=str(error))
            return
        self._set_aside.forget(user_id)
        log.info("erased", user=str(user_id), requests=requests)


def _told(sentence: str) -> None:
    log.debug("erasing", said=sentence)


def chores() -> list[Chore]:
    return [Chore("mails", mail.send_next), Chore("erasures", Erasures().step), Chore("bulk actions", bulk_steps.step)]
