"""manage.py with the tests' kinds, for the processes that tests start.

`dispatch-and-die` is a dispatcher that is killed when RabbitMQ has the messages and PostgreSQL does not know yet.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django

    django.setup()

    from django.core.management import execute_from_command_line

    from queues import outbox
    from tests.processing import kinds

    if sys.argv[1] == "dispatch-and-die":
        sys.argv[1] = "dispatch"
        outbox.mark_published = die  # type: ignore[assignment]
    with kinds.registered():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
