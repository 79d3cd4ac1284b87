"""The settings of the `events` process: those of the API, with its own few paths and only the outermost middleware."""

from project.settings import *  # noqa: F403

ROOT_URLCONF = "project.events_urls"
MIDDLEWARE = ["project.web.middleware.Edge", "project.web.middleware.CrossOrigin"]
