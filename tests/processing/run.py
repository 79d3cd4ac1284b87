"""manage.py with the tests' kinds, for the processes that tests start.

`dispatch-and-die` is a dispatcher that is killed when RabbitMQ has the messages and PostgreSQL does not know yet;
`dispatch-with-a-defect-in-publishing` and `-in-sweeping` meet an error that nobody expects.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(*_: Any) -> Any:
    raise KeyError("a defect")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django

    django.setup()

    from django.core.management import execute_from_command_line

    from queues.enqueue import idempotency
    from queues.lifecycle import outbox
    from tests.processing import kinds

    if sys.argv[1] == "dispatch-and-die":
        sys.argv[1] = "dispatch"
        outbox.mark_published = die  # type: ignore[assignment]
    if sys.argv[1] == "dispatch-with-a-defect-in-publishing":
        sys.argv[1] = "dispatch"
        outbox.unpublished = fail
    if sys.argv[1] == "dispatch-with-a-defect-in-sweeping":
        sys.argv[1] = "dispatch"
        idempotency.prune = fail
    with kinds.registered():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
