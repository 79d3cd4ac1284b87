"""Paths below /api/v1/ that belong to requests and queues."""

from django.urls import path

from queues import control_views, stream_views, views

urlpatterns = [
    path("requests", views.RequestsView.as_view()),
    path("requests/batch", views.BatchView.as_view()),
    path("requests/<str:request_id>", views.RequestView.as_view()),
    path("requests/<str:request_id>/attempts", views.AttemptsView.as_view()),
    path("requests/<str:request_id>/cancel", control_views.CancelView.as_view()),
    path("requests/<str:request_id>/retry", control_views.RetryView.as_view()),
    path("requests/<str:request_id>/skip", control_views.SkipView.as_view()),
    path("kinds", views.KindsView.as_view()),
    path("queue", views.QueueView.as_view()),
    path("queue/events", stream_views.EventsView.as_view()),
    path("queue/pause", control_views.PauseView.as_view()),
    path("queue/resume", control_views.ResumeView.as_view()),
    path("queue/purge", control_views.PurgeView.as_view()),
]
