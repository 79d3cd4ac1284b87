"""EMAIL_URL: one line that says how mails leave, as the settings of Django's e-mail back ends."""

from typing import Any
from urllib.parse import unquote, urlsplit

BACKENDS = "django.core.mail.backends."
TIMEOUT_SECONDS = 10  # longest that a mail server may keep silent
# scheme -> usual port, TLS from the first byte, TLS by STARTTLS
SMTP = {"smtp": (25, False, False), "smtp+tls": (587, False, True), "smtps": (465, True, False)}
EXAMPLE = (
    "write smtp+tls://user:password@host:587 (STARTTLS), smtps://user:password@host:465, smtp://host:25, "
    "console: or file:/folder; what is special in a password as %xx"
)


def parse(url: str) -> dict[str, Any]:
    """Django's EMAIL_* settings for `url`; none for an empty one. Raises ValueError that says what to write."""
    if not url:
        return {}
    if url in ("console:", "memory:"):
        return {"EMAIL_BACKEND": BACKENDS + {"console:": "console", "memory:": "locmem"}[url] + ".EmailBackend"}
    try:
        given = urlsplit(url)
        port = given.port
    except ValueError:
        raise ValueError(EXAMPLE) from None
    if given.scheme == "file" and given.path.startswith("/") and not given.netloc:
        return {"EMAIL_BACKEND": BACKENDS + "filebased.EmailBackend", "EMAIL_FILE_PATH": given.path}
    if given.scheme not in SMTP or not given.hostname or given.path.strip("/") or given.query or given.fragment:
        raise ValueError(EXAMPLE)
    usual_port, at_once, by_starttls = SMTP[given.scheme]
    return {
        "EMAIL_BACKEND": BACKENDS + "smtp.EmailBackend",
        "EMAIL_HOST": given.hostname,
        "EMAIL_PORT": port or usual_port,
        "EMAIL_HOST_USER": unquote(given.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(given.password or ""),
        "EMAIL_USE_SSL": at_once,
        "EMAIL_USE_TLS": by_starttls,
        "EMAIL_TIMEOUT": TIMEOUT_SECONDS,
    }
