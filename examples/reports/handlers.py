"""Builds a report page by page, and calls back when it is there."""

from typing import Any

from pydantic import BaseModel, Field, HttpUrl

from processing.handlers import HandlerRequest, handler


class Report(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    pages: int = Field(ge=1, le=1000)
    callback: HttpUrl | None = None


@handler("reports.build", schema=Report, max_attempts=3, time_limit=600)
def build(request: HandlerRequest, payload: Report) -> dict[str, Any] | None:
    """Builds a report; tells how far it is, and stops when its owner cancels."""
    lines = [payload.title]
    for page in range(1, payload.pages + 1):
        if request.cancelled:
            return None
        lines.append(f"page {page}")
        request.progress(page, payload.pages, f"page {page}")
    if payload.callback is not None:
        # The next request of the same user, exactly once: accepted in the transaction that records this one.
        body = {"report": str(request.id), "pages": payload.pages}
        request.submit("http.call", {"method": "POST", "url": str(payload.callback), "body": body})
    return {"lines": lines}
