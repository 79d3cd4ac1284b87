"""The API's entry point for an ASGI server: what is plain or waits on the event loop, all else in threads.

API_THREADS requests run at once, each thread with a connection to PostgreSQL. Health has two threads of its own: it
answers although all others wait for a server. Streams and long polls have none.
"""

import asyncio
import gc
import os
import signal
from contextlib import suppress
from types import FrameType

from project.telemetry.multiprocess import share_with_siblings

share_with_siblings("api")  # before anything imports prometheus_client

from project.start import set_up

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
set_up()

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from project.postgresql.limits import play
from project.telemetry import tracing
from project.web.threads import InThreads, Receive, Scope, Send
from queues.api.fast_path import in_front_of
from queues.live.long_poll import waiting
from queues.live.sse import streams
from queues.notify.changes import watched


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})  # before it is accepted: the server answers 403
        return
    with suppress(ConnectionResetError):  # the client has gone
        if scope["path"].startswith("/health/"):
            await health(scope, receive, send)  # never behind those who wait for a server
        else:
            await api(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    loop = asyncio.get_running_loop()
    end_what_waits_on(signal.SIGTERM, loop)
    end_what_waits_on(signal.SIGINT, loop)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    tracing.flush()
    await send({"type": "lifespan.shutdown.complete"})


def end_what_waits_on(number: int, loop: asyncio.AbstractEventLoop) -> None:
    """The server waits for open answers before it stops; these would never end. What it does itself is done as well.

    uvloop passes a signal on to the server while it runs alone: between start-up and serving it does not.
    """
    before = signal.getsignal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        streams.stop()
        waiting.stop()
        if not loop.is_running() and not loop.is_closed():
            loop.call_soon_threadsafe(signal.raise_signal, number)
        elif callable(before):
            before(number, frame)

    signal.signal(number, stop)


play("api")
watched.listen()
django = get_wsgi_application()
health = InThreads(django, 2, "health")
api = in_front_of(InThreads(django, settings.ENV.api_threads, "api"))
gc.freeze()  # what was imported is never garbage: the collector need not look through it again and again
