"""The API's entry point for a WSGI server, with a thread for each of API_THREADS requests and API_STREAMS streams.

Two threads more read what clients still send of bodies that were refused (project/web/unread_body.py).
"""

import gc
import os
import signal
import socket
import threading

from project.telemetry.multiprocess import share_with_siblings

share_with_siblings("api")  # before anything imports prometheus_client

from project.start import set_up  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
set_up()

from django.conf import settings  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from project.postgresql.limits import play  # noqa: E402
from project.web.concurrency import Slots  # noqa: E402
from project.web.unread_body import UnreadBody  # noqa: E402
from queues.api.fast_path import in_front_of  # noqa: E402
from queues.live.sse import streams  # noqa: E402
from queues.notify.changes import watched  # noqa: E402


def end_streams_on_signals() -> None:
    """The server waits for open answers before it stops; streams would never end.

    Its own handler, which it sets later, is kept: Python writes the number of each signal that comes here besides.
    """
    numbers, python = socket.socketpair()
    python.setblocking(False)
    descriptor = python.detach()  # for as long as the process lives

    def wait() -> None:
        while number := numbers.recv(1):
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                streams.stop()

    signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    threading.Thread(target=wait, name="signals", daemon=True).start()


if threading.current_thread() is threading.main_thread():
    end_streams_on_signals()
play("api")
watched.listen()
application = UnreadBody(in_front_of(Slots(get_wsgi_application(), settings.ENV.api_threads)))
gc.freeze()  # what was imported is never garbage: the collector need not look through it again and again
