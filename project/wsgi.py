"""The API's entry point for a WSGI server."""

import os

from project.sharing import share_with_siblings

share_with_siblings("api")  # before anything imports prometheus_client

from django.core.wsgi import get_wsgi_application  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_wsgi_application()
