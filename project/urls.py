"""Every path the project serves, one line each; the apps hold their own."""

from django.contrib import admin
from django.urls import include, path

from accounts.views import jwks
from project import docs, health
from project.metrics import metrics

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("accounts.urls")),
    path("api/v1/", include("queues.urls")),
    path("api/schema", docs.schema),
    path("api/docs", docs.swagger),
    path("api/redoc", docs.redoc),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path(".well-known/jwks.json", jwks),
    path("metrics", metrics),
]
