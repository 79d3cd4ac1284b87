"""What the API's documentation opens with, and its groups in the order in which a newcomer needs them."""

TAGS = [
    {"name": "Sign in", "description": "An account, an access token, and a fresh one every ten minutes."},
    {"name": "Ask for work", "description": "What can be asked for, and asking for it."},
    {"name": "Follow it", "description": "What became of it: one by one, in lists, or as it happens."},
    {"name": "Change your mind", "description": "Cancel, try again, skip; pause, resume and empty your queue."},
    {"name": "Schedules", "description": "Have the same asked for at set times: by cron, or every so many seconds."},
    {"name": "Webhooks", "description": "Have what became of your requests sent to an address of yours, signed."},
    {"name": "Your account", "description": "Password, sessions, e-mail address, your data, and how to leave."},
]

DESCRIPTION = """
Send requests. Yours run **one at a time, in the order in which you sent them**; nobody waits for anybody else's.
What was answered with `202` is kept, and ends in exactly one final status.

## The first request

Make an account, get a token, ask for work, look at it:

```bash
api=http://127.0.0.1:8000/api/v1
json='Content-Type: application/json'
curl -s $api/auth/register -H "$json" -d '{"username": "ada", "password": "a long and unusual one"}'
curl -s $api/auth/token    -H "$json" -d '{"username": "ada", "password": "a long and unusual one"}'
token=...   # the "access" of that answer
curl -s $api/requests -H "Authorization: Bearer $token" -H "$json" -d '{"kind": "demo.echo", "payload": "hello"}'
curl -s "$api/requests?limit=1" -H "Authorization: Bearer $token"
```

On this page: run **POST /api/v1/auth/token** below with *Try it out*, copy `access`, and paste it under **Authorize**.

## What holds everywhere

- **Tokens.** `Authorization: Bearer <access>`. An access token lives ten minutes;
  `POST /api/v1/auth/token/refresh` gets the next pair. A refresh token is good for one use.
- **Repeats.** Send an `Idempotency-Key` with what you submit: who lost the answer sends it again and gets the same one.
- **Errors.** All are `application/problem+json` (RFC 9457). Compare `type`: it leads to a page that says what to do,
  such as [/problems/validation](/problems/validation). `errors` names each field. Report `request_id`.
- **Limits.** `429` and `503` say in `Retry-After` when to come back; `RateLimit` headers say what is left.
- **Times** are RFC 3339 in UTC, ids are UUIDs. What a route does not know, field or parameter, it refuses by name.

The same document to read: [ReDoc](/api/redoc). For programs: [/api/schema](/api/schema), OpenAPI 3.1.
"""
