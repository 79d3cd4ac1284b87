"""The API as a program outside uses it: over HTTP, on kept connections, with a token.

`python -m scripts.run.client PORT CONNECTIONS` is such a program: it submits what it reads (JSON, on its standard
input) over so many connections at once, and prints how often each answer came.
"""

import http.client
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from scripts.place import SetupError

ACCEPTED = "accepted"


class Client:
    """One connection, as one user."""

    def __init__(self, port: int, token: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The answer's status and its JSON. Raises OSError when there is none."""
        self.connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        try:
            return answer.status, json.loads(content) if content else None
        except ValueError:
            return answer.status, content[:200].decode(errors="replace")

    def get(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. Raises SetupError with what it said when it is no success."""
        status, answer = self.ask(method, path, body)
        if not 200 <= status < 300:
            raise SetupError(f"{method} {path} answered {status}: {json.dumps(answer)}")
        return answer

    def submit(self, work: list[dict[str, Any]]) -> str:
        """Asks for one piece of work, or several in one batch: "accepted", or the answer that came instead."""
        if len(work) == 1:
            status, answer = self.ask("POST", "/api/v1/requests", work[0])
        else:
            status, answer = self.ask("POST", "/api/v1/requests/batch", {"requests": work})
        detail = answer.get("detail", "") if isinstance(answer, dict) else answer
        return ACCEPTED if status == 202 else f"{status} {detail}"

    def requests(self) -> list[dict[str, Any]]:
        """All requests of the user, in the order of their sequence numbers."""
        found: list[dict[str, Any]] = []
        path: str | None = "/api/v1/requests?order=asc&limit=200"
        while path:
            page = self.get("GET", path)
            found += page["results"]
            path = page["next"]
            if path and "://" in path:
                path = "/" + path.split("/", 3)[3]
        return found


def submit_all(port: int, token: str, connections: int, batches: list[list[dict[str, Any]]]) -> Counter[str]:
    """Submits the batches over so many connections at once; for how many pieces of work each answer came."""
    waiting: SimpleQueue[list[dict[str, Any]]] = SimpleQueue()
    for batch in batches:
        waiting.put(batch)

    def send() -> Counter[str]:
        client, answers = Client(port, token), Counter[str]()
        while True:
            try:
                batch = waiting.get_nowait()
            except Empty:
                return answers
            try:
                answers[client.submit(batch)] += len(batch)
            except (OSError, http.client.HTTPException) as wrong:
                answers[f"none: {wrong}"] += len(batch)
                client = Client(port, token)

    with ThreadPoolExecutor(connections) as pool:
        return sum((sent.result() for sent in [pool.submit(send) for _ in range(connections)]), Counter())


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(submit_all(int(sys.argv[1]), asked["token"], int(sys.argv[2]), asked["batches"])))
