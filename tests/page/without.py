"""The settings without the live page."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as ALL

INSTALLED_APPS = [app for app in ALL if app != "queues.page"]
