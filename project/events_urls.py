"""The paths that the `events` process serves."""

from django.urls import path

from project import health
from project.metrics import metrics
from queues.stream_views import events

urlpatterns = [
    path("api/v1/queue/events", events),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("metrics", metrics),
]
