"""The admin, whose first page is the board: how all queues, processes and servers are, renewed every few seconds."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern, URLResolver


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
        """The board, for who may see queues."""
        from queues.admin import dashboard as board

        return {"board": board.look()} if request.user.has_perm("queues.view_userqueue") else {}
