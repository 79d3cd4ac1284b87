"""The operators' pages. Django's discovery imports this package: it brings the registered pages with it."""

from queues.admin import admin, bulk_pages, kinds

__all__ = ["admin", "bulk_pages", "kinds"]
