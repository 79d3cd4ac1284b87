"""What both clients are before they send anything: where the service is, whom they speak as, how patient they are."""

import uuid
from typing import Any, ClassVar, Generic, TypeVar

import httpx

from ordered_work import _protocol as protocol
from ordered_work._protocol import Call, Patience

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class BaseClient(Generic[Http]):
    """`Client` and `AsyncClient` name their classes of httpx and of locks."""

    _http_class: ClassVar[Any]
    _lock_class: ClassVar[Any]

    def __init__(
        self,
        url: str,
        access: str = "",
        refresh: str = "",
        *,
        patience: Patience | None = None,
        http: Http | None = None,
    ) -> None:
        self.access, self.refresh = access, refresh
        self.patience = patience or Patience()
        self._http: Http = http or self._http_class(base_url=url)
        self._renewing = self._lock_class()
        # A refresh token is spent by its use. With the same key it may be sent again when the answer got lost.
        self._refresh_key = uuid.uuid4().hex

    def _renewal(self) -> Call:
        return protocol.refresh(self.refresh, self._refresh_key)

    def _speak_with(self, tokens: dict[str, str]) -> None:
        self.access, self.refresh = tokens["access"], tokens["refresh"]
