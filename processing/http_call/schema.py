"""The payload of `http.call`: nothing in it can write a second header or a second request."""

from typing import Annotated, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

# RFC 9110: what belongs to one connection, and what the transport writes itself.
TRANSPORT_HEADERS = frozenset(
    {
        "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


def _printable(text: object) -> object:
    """URL parsers drop tabs and line ends silently; what is called is to be what is written."""
    if isinstance(text, str) and any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("Write the URL without spaces and control characters.")
    return text


def _without_credentials(url: HttpUrl) -> HttpUrl:
    if url.username is not None or url.password is not None:
        raise ValueError("Send credentials in a header, not in the URL.")
    return url


URL = Annotated[HttpUrl, BeforeValidator(_printable), AfterValidator(_without_credentials)]
read_url: TypeAdapter[HttpUrl] = TypeAdapter(URL)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
Value = Annotated[str, StringConstraints(pattern=r"^([!-~]([ -~\t]*[!-~])?)?$", max_length=8192)]


def _the_callers_own(headers: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name in headers:
        folded = name.lower()
        if folded in TRANSPORT_HEADERS:
            raise ValueError(f"{name} is written by the service; leave it out.")
        if folded in seen:
            raise ValueError(f"{name} is given twice; header names are the same in any case.")
        seen.add(folded)
    return headers


class Call(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    url: URL = Field(description="http or https, without credentials.")
    headers: Annotated[dict[Name, Value], AfterValidator(_the_callers_own)] = Field(
        {},
        max_length=64,
        description="Without Host, Content-Length and what belongs to one connection. On a redirect to another origin "
        "only Accept, Accept-Language, Content-* and User-Agent are sent. Idempotency-Key is the request's id, unless "
        "it is given here.",
    )
    body: str | dict[str, JsonValue] | list[JsonValue] | None = Field(
        None, description="A text is sent as it is in UTF-8, an object or an array as JSON."
    )
    timeout: float = Field(10, ge=1, le=60, description="Seconds for all of it, redirects included.")

    @model_validator(mode="after")
    def _body_has_a_place(self) -> Self:
        if self.body is not None and self.method in ("GET", "HEAD"):
            raise ValueError(f"A {self.method} has no body; leave it out.")
        return self

    def content(self) -> tuple[bytes | None, str]:
        """The body's bytes and their Content-Type; None when there is none."""
        if self.body is None:
            return None, ""
        if isinstance(self.body, str):
            return self.body.encode(), "text/plain; charset=utf-8"
        return orjson.dumps(self.body), "application/json"
