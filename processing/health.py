"""The broker's part of the service's health. What it needs is loaded when it runs: no HTTP request reaches it."""

from project.telemetry.health import TIMEOUT


def rabbitmq() -> dict[str, str]:
    from processing.broker import rabbitmq as broker

    broker.ping(TIMEOUT)
    return {"rabbitmq": "ok"}
