"""The entry point of the `events` process for an ASGI server: live streams, its own health and metrics, no more."""

import os
import signal
from types import FrameType
from typing import Any

from project.telemetry.multiprocess import share_with_siblings

share_with_siblings("events")  # before anything imports prometheus_client

os.environ["DJANGO_SETTINGS_MODULE"] = "project.events_settings"

from project.start import set_up  # noqa: E402

set_up(set_prefix=False)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from project.postgresql.limits import play  # noqa: E402
from queues.live.sse import streams  # noqa: E402

play("api")


class EventsHandler(ASGIHandler):
    """Django's, without a thread of its own for each request: a stream would keep it for as long as it lasts."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.handle(scope, receive, send)


async def application(scope: Any, receive: Any, send: Any) -> None:
    await (lifespan(receive, send) if scope["type"] == "lifespan" else handler(scope, receive, send))


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    end_streams_on(signal.SIGTERM)
    end_streams_on(signal.SIGINT)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def end_streams_on(number: int) -> None:
    """The server waits for open answers before it stops; these would never end. What it does itself is done as well."""
    before = signal.getsignal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        streams.stop()
        if callable(before):
            before(number, frame)

    signal.signal(number, stop)


handler = EventsHandler()
