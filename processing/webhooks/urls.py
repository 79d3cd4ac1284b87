"""Paths below /api/v1/ that belong to webhooks."""

from django.urls import path

from processing.webhooks import views

urlpatterns = [
    path("webhooks", views.WebhooksView.as_view()),
    path("webhooks/<str:webhook_id>", views.WebhookView.as_view()),
    path("webhooks/<str:webhook_id>/test", views.WebhookTestView.as_view()),
    path("webhooks/<str:webhook_id>/rotate-secret", views.RotateSecretView.as_view()),
    path("webhooks/<str:webhook_id>/deliveries", views.DeliveriesView.as_view()),
    path("webhooks/<str:webhook_id>/deliveries/<str:delivery_id>/resend", views.ResendView.as_view()),
]
