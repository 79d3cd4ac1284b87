"""The operators' pages. Django's discovery imports this package: it brings the registered pages with it."""

from queues.admin import admin, kinds

__all__ = ["admin", "kinds"]
