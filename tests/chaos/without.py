"""manage.py with one of the protocol's parts switched off (WITHOUT=..): the ledger must find that.

fence      whoever records, renews or catches up is believed to hold the queue
recheck    a queue goes idle when RabbitMQ's is empty, whatever PostgreSQL says it ought to hold
sweeper    nobody looks for dead leases and lost tokens
"""

import os
import sys
from pathlib import Path

FENCE = "fence = %(fence)s"
FENCE_OF_EACH = "fence = told.fence"


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    globals()[f"without_{os.environ['WITHOUT']}"]()

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def without_nothing() -> None:
    pass


def without_fence() -> None:
    from queues.sql import protocol

    protocol.RENEW.text = protocol.RENEW.text.replace(" AND q.fence = held.fence", "").replace(
        " AND fence = held.fence", ""
    )
    for statement in (protocol.RECORD, protocol.RECORD_TOGETHER):
        assert FENCE_OF_EACH in statement.text
        statement.text = statement.text.replace(FENCE_OF_EACH, "true")
    assert FENCE in protocol.LEASED.text
    protocol.LEASED.text = protocol.LEASED.text.replace(FENCE, "%(fence)s::bigint IS NOT NULL")


def without_recheck() -> None:
    from queues.sql import protocol

    protocol.REPUBLISH.text = """
        UPDATE queues_userqueue SET state = 'idle', state_since = now(), idle_since = now()
        WHERE id = %(queue)s AND fence = %(fence)s AND state = 'draining' AND %(published)s::bigint IS NOT NULL
        RETURNING id
    """


def without_sweeper() -> None:
    import django

    django.setup()

    from processing.dispatch.dispatcher import Dispatcher

    def sweep(self: Dispatcher) -> None:
        pass

    Dispatcher.sweep = sweep  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
