"""What of the queues' health the service's own check tells: who leads, who works, whether what waits goes on."""

from django.conf import settings

from queues.lifecycle import leadership
from queues.operations import backlog

SILENT_SECONDS = 10.0  # a leader is succeeded within 5


def check() -> dict[str, str]:
    """`dispatcher`: each shard's leader made progress. `workers`: one gave a sign. `queues`: none stands."""
    now = backlog.recent.latest()
    return {
        "dispatcher": "ok" if _led() else "down",
        "workers": "ok" if now.workers else "down",
        "queues": "ok" if now.moves else "down",
    }


def _led() -> bool:
    silent = leadership.last_sign(settings.ENV.dispatch_shards)
    return silent is not None and silent <= SILENT_SECONDS
