"""Everybody who may call: owners, others, operators and nobody."""

from datetime import timedelta

from accounts.models import Session, Tokens, User
from accounts.tokens import AccessToken
from tests.accounts.people import Api, make_user


class Cast:
    """The owner, and everybody else, and what each has in hand."""

    def __init__(self) -> None:
        self.kept: dict[str, Tokens] = {}
        self.client = Api()  # one for all: the middleware is set up once
        self.users = {"owner": make_user(), "other": make_user()}
        self.users["staff"] = make_user(is_staff=True, is_superuser=True)

    def api(self, who: str) -> Api:
        self.client.tokens = self.tokens(who)
        return self.client

    def tokens(self, who: str) -> Tokens:
        """The same in every call, unless the last one has ended their session."""
        if who not in self.kept:
            self.kept[who] = self.new_tokens(who)
        return self.kept[who]

    def new_tokens(self, who: str) -> Tokens:
        """A fresh session's for who may call, something worthless for the others."""
        if who in self.users:
            User.objects.filter(id=self.users[who].id).update(is_active=True)  # they may have asked to be erased
            return Session.open(User.objects.get(id=self.users[who].id))
        if who == "nobody":
            return Tokens("", "")
        user = make_user()
        tokens = Session.open(user)
        if who == "garbage":
            return tokens._replace(access="x" + tokens.access)
        if who == "refresh":
            return tokens._replace(access=tokens.refresh)
        if who == "expired":
            old = AccessToken(tokens.access)
            old.set_exp(lifetime=-timedelta(seconds=1))
            return tokens._replace(access=str(old))
        if who == "ended":
            user.end_sessions()
        elif who == "deactivated":
            User.objects.filter(id=user.id).update(is_active=False)  # so that its session has not ended
        else:
            user.delete()
        return tokens
