"""The control process of a peer in Python: reads a verb a line, enqueues, clears or counts, answers in a line."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]


def serve(add: Callable[[list[Job]], Any], outcomes: Callable[[], int | None], clear: Callable[[], Any]) -> None:
    """Answer until the other side closes the pipe."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not look like an answer
    for line in sys.stdin:
        verb, jobs = json.loads(line)
        try:
            began = time.monotonic()
            if verb == "add":
                add(jobs)
                found: Any = began
            else:
                found = outcomes() if verb == "outcomes" else clear()
            answer = {"ok": found}
        except Exception as wrong:
            answer = {"error": f"{type(wrong).__name__}: {wrong}"}
        print(json.dumps(answer), file=answers, flush=True)
