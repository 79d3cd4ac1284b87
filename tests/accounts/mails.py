"""Mails as a reader gets them: sent by the dispatcher's step, their links opened."""

import re
from urllib.parse import parse_qs, urlsplit

from django.core import mail as outbox

from accounts.mail.delivery import send_next


def delivered() -> list[outbox.EmailMessage]:
    """Send all that is due; what was sent since the last call."""
    while send_next():
        pass
    sent = list(outbox.outbox)
    outbox.outbox.clear()
    return sent


def links_in(text: object) -> list[str]:
    return re.findall(r"https?://\S+/account/\S+", str(text))


def token_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["token"][0]


def mailed_tokens() -> list[str]:
    return [token_of(link) for message in delivered() for link in links_in(message.body)]
