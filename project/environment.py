"""Every setting, read once from the environment: its type, its default and what it is for.

`Environment` names the variables (upper case in the shell). A value that does not fit stops the start with a sentence
that says what to write instead. project/settings.py makes Django's own settings from them.
"""

import json
import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal

from django.core.exceptions import ImproperlyConfigured
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings

from project import email_url
from project.rabbitmq_addresses import amqp_urls

DEVELOPMENT_SECRET = "development-only-" + "0" * 40  # refused outside DEBUG


OPTIONAL_KINDS = {"demo": "processing.demo", "http.call": "processing.http_call"}

# What the promises of `ingest_kafka` rest on, and what has a setting of its own.
KAFKA_OURS = frozenset(
    {"bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"}
)


def named(text: str) -> list[str]:
    """What a comma-separated setting names."""
    return [part.strip() for part in text.split(",") if part.strip()]


class Environment(BaseSettings):
    """What a deployment sets."""

    # Django looks for this at every settings.ENV (LazyObject); not finding it takes pydantic 5 µs each time.
    _mask_wrapped: ClassVar[bool] = True

    debug: bool = Field(False, description="Development: the default secret and plain HTTP are allowed.")
    secret_key: str = Field(
        DEVELOPMENT_SECRET, min_length=32, description="Signs sessions and tokens: 50 random characters."
    )
    secrets_dir: str = Field("", description="Folder of files named for settings: secret_key .. The environment wins.")
    allowed_hosts: str = Field("localhost,127.0.0.1,[::1]", description="Host names served, comma-separated.")
    database_url: str = Field("postgres://postgres@127.0.0.1:5432/ordered_work", description="PostgreSQL.")
    rabbitmq_url: str = Field(
        "amqp://guest:guest@127.0.0.1:5672/%2F",
        description="RabbitMQ; the path is the vhost. Nodes of a cluster: amqp://user:password@a:5672,b:5672/vhost.",
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis; the path is the database number.")
    redis_prefix: str = Field("", pattern=r"^[A-Za-z0-9._:-]{0,80}$", description="Before every key and channel there.")

    api_statement_seconds: float = Field(3, ge=0.1, description="Longest statement of an API or events process.")
    background_statement_seconds: float = Field(4, ge=0.1, description="The same of dispatchers and workers.")
    command_statement_seconds: float = Field(21600, ge=1, le=86400, description="The same of other commands.")

    optional_kinds: str = Field(
        "", description="Which kinds of the project's own are on, of demo and http.call; with DEBUG both are."
    )
    kinds: str = Field(
        "", description="Which kinds may be asked for: names or patterns as report.*, comma-separated. Empty: all."
    )
    extra_apps: str = Field("", description="Your own apps, comma-separated: each one's handlers.py is found.")
    queue_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,40}$", description="Before every RabbitMQ queue's name.")
    persistent_messages: bool = Field(False, description="Pointers on the broker's disk too: slower, never needed.")
    dispatch_shards: int = Field(1, ge=1, le=1024, description="Parts the users are split into, each with a leader.")
    lease_seconds: float = Field(15, ge=1, le=3600, description="How long a silent worker keeps a queue.")
    turn_requests: int = Field(500, ge=1, description="A turn ends after so many requests of one user ..")
    turn_seconds: float = Field(1, gt=0, description=".. or so many seconds, so that other users come first.")
    record_after_ms: float = Field(20, ge=0, description="Finished work is recorded at the latest after so long.")
    kind_share: float = Field(
        0.75, gt=0, le=1, description="Part of a worker's threads that one kind with a time limit above 10 s may hold."
    )
    worker_threads_max: int = Field(
        16, ge=1, description="Threads a worker process grows to while slow handlers hold its own; 1: it never does."
    )
    async_handlers: int = Field(
        1000, ge=1, description="`async def` handlers that one worker process runs at once, beside its threads."
    )
    kind_wait_seconds: float = Field(
        900, gt=0, description="Who waits longer for a kind's limit or pause is an alert, and on the board."
    )
    stop_grace_seconds: float = Field(20, ge=0, description="How long SIGTERM lets running handlers finish.")

    result_limit: int = Field(1024 * 1024, ge=1, description="Most bytes of JSON a handler's result may have.")
    waiting_limit: int = Field(1000, ge=1, description="Requests a user may have waiting.")
    bytes_waiting: int = Field(32 * 1024**2, ge=0, description="Bytes of a user's waiting payloads; 0: no limit.")
    bytes_stored: int = Field(1024**3, ge=0, description="Bytes of all that is kept of a user's work; 0: no limit.")
    access_token_seconds: int = Field(600, ge=1, description="Life of an access token.")
    refresh_token_seconds: int = Field(14 * 86400, ge=1, description="Life of a refresh token.")
    token_keys: str = Field("", description="PEM of Ed25519 or RSA keys: the first signs, all verify. Empty: HS256.")
    token_issuer: str = Field("ordered-work", min_length=1, description="Who issues tokens: their iss claim.")
    token_audience: str = Field("ordered-work-api", min_length=1, description="Whom tokens are for: their aud claim.")

    submissions_per_minute: int = Field(6000, ge=1, description="Requests a user may submit.")
    failed_logins_per_minute: int = Field(10, ge=1, description="Failed logins of one name from one address.")
    logins_per_minute: int = Field(300, ge=1, description="Logins from one address.")
    registrations_per_minute: int = Field(120, ge=1, description="Registrations from one address.")
    session_retention_days: float = Field(30, ge=0, description="How long sessions that are over stay listed.")
    audit_retention_days: float = Field(400, ge=0, description="How long the audit trail is kept; 0: for ever.")
    request_retention_days: float = Field(90, ge=0, description="How long a finished request is kept; 0: for ever.")
    admin_log_retention_days: float = Field(400, ge=0, description="How long operators' log is kept; 0: for ever.")
    trusted_proxies: int = Field(0, ge=0, le=10, description="Proxies in front that write X-Forwarded-For and -Proto.")
    cors_origins: str = Field("", description="Origins whose scripts may call the API, comma-separated.")
    body_limit: int = Field(64 * 1024, ge=1024, description="Bytes of a request's body.")
    batch_body_limit: int = Field(1024 * 1024, ge=1024, description="Bytes of a batch's body.")
    api_threads: int = Field(
        8, ge=1, description="Requests one API process serves at once, each on its own connection."
    )
    hashing_requests: int = Field(
        3, ge=1, description="Logins and registrations that one API process takes at once; others get 503."
    )
    registration: Literal["open", "closed", "invite"] = Field(
        "open", description="Who may register: anybody, nobody, or who has an invitation (made in the admin)."
    )
    email_url: str = Field(
        "",
        description="How mails leave: smtp+tls://user:password@host:587. Empty: the console with DEBUG, else not.",
    )
    default_from_email: str = Field("Ordered work <no-reply@localhost>", description="The sender of mails.")
    public_url: str = Field(
        "http://127.0.0.1:8000",
        pattern=r"^https?://[^/?#\s]+$",
        description="Where users reach this: for links in mails.",
    )
    email_verification_seconds: int = Field(3 * 86400, ge=60, description="Life of a link that confirms an address.")
    password_reset_seconds: int = Field(3600, ge=60, description="Life of a link that sets a new password.")
    mails_per_hour: int = Field(5, ge=1, description="Mails to one address that anybody can ask for.")
    account_calls_per_minute: int = Field(
        30, ge=1, description="Verifications and resets, asked for or confirmed, from one address."
    )
    exports_per_hour: int = Field(10, ge=1, description="Exports of one user's data.")
    streams: int = Field(5000, ge=0, description="Event streams of one API process; and as many ?wait= may wait.")
    streams_per_user: int = Field(10, ge=1, description="Event streams of one user in one process.")
    long_polls_per_user: int = Field(100, ge=1, description="?wait= of one user in one process; more wait for nothing.")
    cache_seconds: int = Field(600, ge=0, description="Answers about finished requests stay in Redis; 0: they don't.")
    json_depth: int = Field(32, ge=1, le=200, description="Levels of arrays and objects in a body.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The lowest level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Lines for machines or for readers; auto: for readers in DEBUG and on a terminal."
    )
    log_requests_per_second: int = Field(
        100, ge=0, description="Lines a second and process for each event of requests: accepted, started, succeeded .."
    )
    tracing: bool = Field(False, description="Spans of submissions and attempts, by OpenTelemetry as OTEL_* say.")
    trace_callers: bool = Field(
        True, description="Go on with the trace that a caller's headers name, sampled or not as they say."
    )
    health_host: str = Field("127.0.0.1", description="Where dispatchers and workers answer probes; 0.0.0.0: all.")
    health_port: int = Field(0, ge=0, le=65535, description="Their port for probes and /metrics; 0: none.")
    http_call_allow: str = Field("", description="Not public, yet open to http.call: names, addresses, networks.")

    webhooks: bool = Field(True, description="Users may have what becomes of their requests sent to HTTPS addresses.")
    webhooks_per_user: int = Field(10, ge=1, le=1000, description="Webhooks a user may have.")
    webhook_allow: str = Field("", description="Not public, or http, yet open to webhooks: names, addresses, networks.")
    webhook_threads: int = Field(16, ge=2, le=256, description="Receivers that one process sends to side by side.")
    webhook_timeout_seconds: float = Field(10, ge=0.5, le=60, description="How long a receiver may take to answer.")
    webhook_give_up_hours: float = Field(24, gt=0, description="A webhook that failed for so long is switched off.")
    webhook_body_limit: int = Field(
        256 * 1024, ge=16 * 1024, description="Bytes of a message; payload and result of a larger one are left out."
    )
    webhook_retention_days: float = Field(14, gt=0, description="How long deliveries are listed.")
    webhook_calls_per_minute: int = Field(60, ge=1, description="Changes, tests and resends of a user's webhooks.")

    kafka_brokers: str = Field("", description="Where manage.py ingest_kafka finds Kafka: host:9092,host:9092.")
    kafka_topics: str = Field("requests", min_length=1, description="The topics it reads, comma-separated.")
    kafka_group: str = Field("ordered-work", min_length=1, description="Its consumer group.")
    kafka_user: str = Field(
        "key",
        pattern=r"^(key|header:\S+|payload:[^.]+(\.[^.]+)*)$",
        description="Where a message names its user, by id or name: key, header:NAME or payload:path.to.field.",
    )
    kafka_config: str = Field(
        "", description='More properties of librdkafka as a JSON object: {"security.protocol": "SASL_SSL"} ..'
    )
    kafka_rejected_retention_days: float = Field(90, ge=0, description="How long rejected ones stay; 0: for ever.")

    @field_validator("kafka_config")
    @classmethod
    def _properties(cls, text: str) -> str:
        try:
            asked = json.loads(text or "{}")
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            raise ValueError('write a JSON object: {"security.protocol": "SASL_SSL"}')
        ours = sorted(asked.keys() & KAFKA_OURS)
        if ours:
            raise ValueError(f"{', '.join(ours)}: set by ingest_kafka itself, or by another setting")
        return text

    @field_validator("rabbitmq_url")
    @classmethod
    def _addresses(cls, value: str) -> str:
        amqp_urls(value)
        return value

    @field_validator("email_url")
    @classmethod
    def _mail_server(cls, value: str) -> str:
        email_url.parse(value)
        return value

    @field_validator("optional_kinds")
    @classmethod
    def _known_kinds(cls, text: str) -> str:
        if unknown := set(named(text)) - set(OPTIONAL_KINDS):
            raise ValueError(f"write demo, http.call or both instead of {', '.join(sorted(unknown))!r}")
        return text

    @field_validator("kinds")
    @classmethod
    def _patterns(cls, text: str) -> str:
        for pattern in named(text):
            if not re.fullmatch(r"[!-~]{1,100}", pattern):
                raise ValueError(f"write e.g. report.build,mail.* instead of {pattern!r}")
        return text

    @field_validator("http_call_allow", "webhook_allow")
    @classmethod
    def _names_or_networks(cls, text: str) -> str:
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                ip_network(entry)
            except ValueError:
                # A name that ends in a number is a mistyped address.
                if not re.fullmatch(r"([A-Za-z0-9_-]+\.)*[A-Za-z_][A-Za-z0-9_-]*", entry):
                    raise ValueError(f"write e.g. api.internal,10.1.0.0/16,fd00::/8 instead of {entry!r}") from None
        return text


def read_environment() -> Environment:
    """The environment as typed values. Raises ImproperlyConfigured with a sentence for each value that does not fit."""
    secrets = os.environ.get("SECRETS_DIR") or None
    if secrets and not Path(secrets).is_dir():
        raise ImproperlyConfigured(f"SECRETS_DIR={secrets!r} is no folder. Mount the secrets there, or unset it.")
    try:
        env = Environment(_secrets_dir=secrets)
    except ValidationError as wrong:
        sentences = []
        for error in wrong.errors():
            name = str(error["loc"][0])
            shown = "" if name in ("secret_key", "token_keys", "email_url", "kafka_config") else f"={error['input']!r}"
            meant = Environment.model_fields[name].description
            sentences.append(f"{name.upper()}{shown} does not fit: {error['msg']}. What it is: {meant}")
        raise ImproperlyConfigured(" ".join(sentences)) from None
    if env.secret_key == DEVELOPMENT_SECRET and not env.debug:
        raise ImproperlyConfigured("SECRET_KEY is not set. Set it to 50 random characters, or DEBUG=1 for development.")
    if env.email_url and not env.debug and "public_url" not in env.model_fields_set:
        raise ImproperlyConfigured("PUBLIC_URL is not set. Links in mails need it: PUBLIC_URL=https://work.example.com")
    return env


def kafka_properties(env: Environment) -> dict[str, Any]:
    """What KAFKA_CONFIG says, and where the brokers are."""
    return {**json.loads(env.kafka_config or "{}"), "bootstrap.servers": env.kafka_brokers}


def optional_kinds(env: Environment) -> list[str]:
    """Which of OPTIONAL_KINDS are on: a pattern such as * names none of them."""
    patterns = named(env.kinds)
    return [
        kinds
        for kinds in OPTIONAL_KINDS
        if env.debug
        or kinds in named(env.optional_kinds)
        or any(pattern == kinds or pattern.startswith(f"{kinds}.") for pattern in patterns)
    ]


def allowed_kinds(env: Environment) -> list[str]:
    """The patterns of what may be asked for; none: all that there is. What OPTIONAL_KINDS names is added to KINDS."""
    if not named(env.kinds):
        return []
    return named(env.kinds) + [f"{kinds}*" for kinds in named(env.optional_kinds)]
