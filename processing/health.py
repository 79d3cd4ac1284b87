"""What the checks of dispatchers and workers share, and the broker's part of the service's health.

Live says whether a restart would help: a server that is away is none of its business. Ready says whether it works now.
"""

from project.telemetry import health

STUCK_SECONDS = 60.0  # longer than any wait for a server, and than a process takes to start
NEEDED = ("postgresql", "migrations", "rabbitmq")


def servers() -> dict[str, str]:
    """The checks of what neither can do without."""
    found = health.checks()
    return {name: found[name] for name in NEEDED}


def rabbitmq() -> dict[str, str]:
    """What it needs is loaded when it runs: no HTTP request reaches it."""
    from processing.broker import rabbitmq as broker

    broker.ping(health.TIMEOUT)
    return {"rabbitmq": "ok"}
