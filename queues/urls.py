"""Paths below /api/v1/ that belong to requests and queues."""

from django.urls import path

from queues.api import control, events, requests
from queues.api.export import ExportView

urlpatterns = [
    path("requests", requests.RequestsView.as_view()),
    path("requests/batch", requests.BatchView.as_view()),
    path("requests/<str:request_id>", requests.RequestView.as_view()),
    path("requests/<str:request_id>/attempts", requests.AttemptsView.as_view()),
    path("requests/<str:request_id>/cancel", control.CancelView.as_view()),
    path("requests/<str:request_id>/retry", control.RetryView.as_view()),
    path("requests/<str:request_id>/skip", control.SkipView.as_view()),
    path("auth/me/export", ExportView.as_view()),
    path("kinds", requests.KindsView.as_view()),
    path("queue", requests.QueueView.as_view()),
    path("queue/events", events.EventsView.as_view()),
    path("queue/events/ticket", events.TicketView.as_view()),
    path("queue/pause", control.PauseView.as_view()),
    path("queue/resume", control.ResumeView.as_view()),
    path("queue/purge", control.PurgeView.as_view()),
]
