"""The paths that the `events` process serves."""

from django.urls import path

from project.telemetry import health
from project.telemetry.metrics import metrics
from queues.api.events import events

urlpatterns = [
    path("api/v1/queue/events", events),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("metrics", metrics),
]
