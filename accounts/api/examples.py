"""Examples of the routes of users and sessions, for the documentation. All are of one user, Ada."""

from project.rest.examples import EXPIRED, Error, tell

ADA = {"id": "01938a6c-1b9e-7f04-8d21-6a5b3c2d1e0f", "username": "ada", "email": "ada@example.com"}
PASSWORD = "a long and unusual one"  # noqa: S105  (an example)
NEW_PASSWORD = "another long and unusual one"  # noqa: S105  (an example, too)
ACCESS = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImhzLTUxIn0.eyJzdWIiOiIwMTkzOGE2YyJ9.Zk3v"
REFRESH = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImhzLTUxIn0.eyJzdWIiOiIwMTkzOGE2YyJ9.Qw8x"
MAILED = "WyIwMTkzOGE2YzFiOWU3ZjA0Il0:1tGJ2k:9bZkq0X3r5"
INVALID = "The request does not fit; see errors."
LINK = "This link is not valid: it was used, has expired, or is not complete. Ask for another one."
NO_REFRESH = (Error("token-invalid", "The token is not valid."), EXPIRED)
MAIL_OFF = {
    503: (
        Error("mail-off", "This service sends no mail. Ask an operator."),
        Error("unavailable", "The service cannot do this at the moment; try again."),
    )
}

SIGN_IN, ACCOUNT = "Sign in", "Your account"


def wrong(field: str, code: str, detail: str) -> dict[int, tuple[Error, ...]]:
    return {400: (Error("validation", INVALID, ((field, code, detail),)),)}


tell(
    "register",
    SIGN_IN,
    "Make an account",
    request={"username": "ada", "password": PASSWORD, "email": "ada@example.com"},
    answers={201: ADA},
    errors={
        **wrong("username", "unique", "A user with that username already exists."),
        403: (Error("registration-closed", "Nobody can register here by themselves. Ask an operator for an account."),),
    },
)
tell(
    "login",
    SIGN_IN,
    "Get a token",
    request={"username": "ada", "password": PASSWORD},
    answers={200: {"access": ACCESS, "refresh": REFRESH}},
    errors={
        **wrong("password", "required", "This field is required."),
        401: (Error("wrong-credentials", "Wrong username or password."),),
    },
)
tell(
    "refresh",
    SIGN_IN,
    "Get the next token",
    request={"refresh": REFRESH},
    answers={200: {"access": ACCESS, "refresh": REFRESH}},
    errors={
        **wrong("refresh", "required", "This field is required."),
        401: (*NO_REFRESH, Error("session-ended", "The session has ended; log in again.")),
    },
)
tell(
    "logout",
    SIGN_IN,
    "Log out",
    request={"refresh": REFRESH},
    errors={**wrong("refresh", "required", "This field is required."), 401: NO_REFRESH},
)
tell("logout_all", SIGN_IN, "Log out everywhere")
tell("me", ACCOUNT, "See who you are", answers={200: {**ADA, "created_at": "2026-11-20T09:30:00Z"}})
tell(
    "my_email",
    ACCOUNT,
    "See whether your e-mail address is confirmed",
    answers={200: {"email": ADA["email"], "confirmed": True}},
)
tell(
    "change_password",
    ACCOUNT,
    "Change your password",
    request={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    errors=wrong("current_password", "wrong", "This is not your password."),
)
tell(
    "verify_email",
    ACCOUNT,
    "Confirm your e-mail address",
    request={"token": MAILED},
    errors={**wrong("token", "invalid", LINK), **MAIL_OFF},
)
tell(
    "password_reset",
    ACCOUNT,
    "Ask for a new password by mail",
    request={"email": "ada@example.com"},
    errors={**wrong("email", "invalid", "Enter a valid email address."), **MAIL_OFF},
)
tell(
    "password_reset_confirm",
    ACCOUNT,
    "Set the new password",
    request={"token": MAILED, "new_password": NEW_PASSWORD},
    errors=wrong("token", "invalid", LINK),
)
tell(
    "sessions",
    ACCOUNT,
    "See where you are logged in",
    answers={
        200: [
            {
                "id": "01938a6d-0c2f-7b18-a4e6-1f2e3d4c5b6a",
                "created_at": "2026-11-20T09:31:00Z",
                "last_used_at": "2026-11-20T10:02:11Z",
                "address": "192.0.2.7",
                "user_agent": "curl/8.5.0",
                "current": True,
            }
        ]
    },
)
tell("end_session", ACCOUNT, "Log out somewhere else")
tell(
    "erase_me",
    ACCOUNT,
    "Leave: erase your account",
    request={"password": PASSWORD},
    errors=wrong("password", "wrong", "This is not your password."),
)
