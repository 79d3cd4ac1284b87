"""`python -m bench.filled [--quick]`: a place with full tables, whose backlogs are measured as they are named on stdin.

Says on stdout how many seconds the tables took to fill, then the jobs a second of each backlog. `loads/scale.py` asks.
"""

import json
import sys
import time
from contextlib import suppress
from typing import Any

from bench.names import FILLED
from bench.place import place
from scripts.servers.process import signals_interrupt

FINISH = (  # what `pages` leaves waiting, for its lists
    "UPDATE queues_userqueue SET state = 'idle', wake_at = NULL, lease_until = NULL, paused = false,"
    " published_seq = last_seq, done_seq = last_seq WHERE active OR last_seq > done_seq OR paused",
    "UPDATE queues_request SET status = 'succeeded', started_at = created_at, finished_at = created_at"
    " WHERE finished_at IS NULL",
    "VACUUM ANALYZE queues_userqueue, queues_request",
)


def main(quick: bool) -> None:
    """Fill, and measure until stdin ends or somebody stops it; then put everything away."""
    signals_interrupt()
    out, sys.stdout = sys.stdout, sys.stderr  # others print, too

    def say(what: Any) -> None:
        print(json.dumps(what), file=out, flush=True)

    with suppress(KeyboardInterrupt), place() as here:
        here.prefix = "filled-"
        from bench.alone.pages import fill  # whose models Django has to be set up for
        from bench.loads.scale import backlogs, measured, started

        began = time.monotonic()
        fill(here, *FILLED[quick])
        for statement in FINISH:
            here.sql.execute(statement)
        filled = time.monotonic() - began
        asked = backlogs(quick)
        ours = started(here, asked, keep_others=True)
        say(filled)
        for name in filter(None, map(str.strip, sys.stdin)):
            say(measured(ours, asked[name], name))


if __name__ == "__main__":
    main("--quick" in sys.argv)
