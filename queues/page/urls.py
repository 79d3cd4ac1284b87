"""The live page's one path."""

from django.urls import path

from queues.page.views import live

urlpatterns = [path("", live)]
