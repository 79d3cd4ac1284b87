"""Why somebody is not let in: answers of the API, with what a client needs to tell them apart."""

from uuid import UUID

from project.rest.problems import Unauthenticated


class SessionEnded(Unauthenticated):
    """401: the token is well signed, but its session has ended, or its user is inactive or gone."""

    name = "session-ended"

    def __init__(self) -> None:
        super().__init__("The session has ended; log in again.", error="invalid_token")


class RefreshSpent(SessionEnded):
    """The same answer, but for the trail: the token came a second time, and took its whole session with it."""


class WrongCredentials(Unauthenticated):
    """401: one answer for a wrong password and for users that are unknown, inactive or without a password."""

    name = "wrong-credentials"
    detail_text = "Wrong username or password."

    def __init__(self, user_id: UUID | None = None) -> None:
        super().__init__()
        self.user_id = user_id  # whose password it was not; for the trail alone
