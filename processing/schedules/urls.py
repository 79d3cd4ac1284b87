"""Paths below /api/v1/ that belong to schedules."""

from django.urls import path

from processing.schedules import views

urlpatterns = [
    path("schedules", views.SchedulesView.as_view()),
    path("schedules/<str:schedule_id>", views.ScheduleView.as_view()),
    path("schedules/<str:schedule_id>/pause", views.PauseView.as_view()),
    path("schedules/<str:schedule_id>/resume", views.ResumeView.as_view()),
    path("schedules/<str:schedule_id>/run-now", views.RunNowView.as_view()),
]
