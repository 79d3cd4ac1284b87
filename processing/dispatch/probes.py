"""Whether a dispatcher process lives and is of use: what its health endpoint answers."""

import threading
import time
from collections.abc import Sequence

from processing.dispatch.dispatcher import Dispatcher
from processing.health import STUCK_SECONDS, servers


class DispatcherProbes:
    """Of one dispatcher process, which has a thread for each shard. One that stands by is ready."""

    def __init__(self, shards: Sequence[tuple[Dispatcher, threading.Thread]]) -> None:
        self.shards = shards

    def live(self) -> dict[str, str]:
        return {f"shard {dispatcher.shard.number}": self._shard(dispatcher, t) for dispatcher, t in self.shards}

    def _shard(self, dispatcher: Dispatcher, thread: threading.Thread) -> str:
        if not thread.is_alive():
            return "its thread ended"
        looked = min(dispatcher.looked, dispatcher.sweeper.looked)
        return "ok" if time.monotonic() - looked < STUCK_SECONDS else "stuck"

    def ready(self) -> dict[str, str]:
        return servers() | self.live()
