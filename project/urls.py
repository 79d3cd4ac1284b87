"""Every path the project serves, one line each; the apps hold their own."""

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

from accounts.api.views import jwks
from accounts.mail import pages as account_pages
from project.rest import docs, pages
from project.telemetry import health
from project.telemetry.metrics import metrics

urlpatterns = [
    path("api/v1/", include("queues.urls")),  # first: what stands before a path is tried at each of its requests
    path("api/v1/", include("accounts.urls")),
    *(path("api/v1/", include(app.api_urls)) for app in apps.get_app_configs() if hasattr(app, "api_urls")),
    path("admin/", admin.site.urls),
    path("", include("queues.page.urls") if apps.is_installed("queues.page") else pages.home),
    path("api/v1/", pages.places),
    path("problems/<str:name>", pages.problem),
    path("account/verify-email", account_pages.verify_email),
    path("account/password-reset", account_pages.password_reset),
    path("account/password-reset/confirm", account_pages.password_reset_confirm),
    path("favicon.ico", pages.icon),
    path("favicon.svg", pages.icon),
    path("api/schema", docs.schema),
    path("api/docs", docs.swagger),
    path("api/redoc", docs.redoc),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path(".well-known/jwks.json", jwks),
    path("metrics", metrics),
]

if apps.is_installed("processing.webhooks"):
    urlpatterns.insert(2, path("api/v1/", include("processing.webhooks.urls")))
