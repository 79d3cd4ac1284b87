"""The admin, whose first page is the board: how all queues, processes and servers are, renewed every few seconds."""

from collections.abc import Callable
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern, URLResolver


class Board(NamedTuple):
    figures: Callable[[], Any]
    permission: str


_board: Board | None = None


def register_board(figures: Callable[[], Any], permission: str) -> None:
    """The first page, from an app's `ready()`: what templates/admin/board shows to whoever has the permission."""
    global _board
    _board = Board(figures, permission)


class AdminConfig(DjangoAdminConfig):
    default_site = "project.admin.site.Site"


class Site(admin.AdminSite):
    site_header = site_title = "Ordered work, per user"
    index_title = "Board"
    index_template = "admin/board/index.html"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        return [path("board", self.admin_view(self.board), name="board"), *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, self._shown(request) | (extra_context or {}))

    def board(self, request: HttpRequest) -> HttpResponse:
        """The board alone, for the script that puts it in the place of the last one."""
        shown = self._shown(request)
        if not shown:
            raise PermissionDenied
        return render(request, "admin/board/board.html", shown)

    def _shown(self, request: HttpRequest) -> dict[str, Any]:
        if _board is None or not request.user.has_perm(_board.permission):
            return {}
        return {"board": _board.figures()}
