from django.apps import AppConfig


class HTTPConfig(AppConfig):
    name = "processing.http_call"
