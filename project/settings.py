"""Every setting, read once from the environment: its type, its default and what it is for.

`Environment` names the variables (upper case in the shell). A value that does not fit stops the start with a sentence
that says what to write instead. Below it stand Django's own settings, made from them.
"""

import hashlib
import os
import re
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal

from django.core.exceptions import ImproperlyConfigured
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings

from project import email_url
from project.postgresql import url as database_url
from project.rabbitmq_addresses import amqp_urls
from project.rest.introduction import DESCRIPTION, TAGS
from project.start import extra_apps

BASE_DIR = Path(__file__).resolve().parent.parent
DEVELOPMENT_SECRET = "development-only-" + "0" * 40  # refused outside DEBUG


OPTIONAL_KINDS = {"demo": "processing.demo", "http.call": "processing.http_call"}


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
        3, ge=1, description="Logins and registrations that one API process hashes or has wait at once; others get 503."
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
    cache_seconds: int = Field(600, ge=0, description="Answers about finished requests stay in Redis; 0: none do.")
    json_depth: int = Field(32, ge=1, le=200, description="Levels of arrays and objects in a body.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least of what is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Lines for machines or for readers; auto: for readers in DEBUG and on a terminal."
    )
    log_requests_per_second: int = Field(
        100, ge=0, description="Lines a second and process for each event of requests: accepted, started, succeeded .."
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
            shown = "" if name in ("secret_key", "token_keys", "email_url") else f"={error['input']!r}"
            meant = Environment.model_fields[name].description
            sentences.append(f"{name.upper()}{shown} does not fit: {error['msg']}. What it is: {meant}")
        raise ImproperlyConfigured(" ".join(sentences)) from None
    if env.secret_key == DEVELOPMENT_SECRET and not env.debug:
        raise ImproperlyConfigured("SECRET_KEY is not set. Set it to 50 random characters, or DEBUG=1 for development.")
    if env.email_url and not env.debug and "public_url" not in env.model_fields_set:
        raise ImproperlyConfigured("PUBLIC_URL is not set. Links in mails need it: PUBLIC_URL=https://work.example.com")
    return env


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


def database(url: str) -> dict[str, Any]:
    """Django's description of the PostgreSQL at `url`. Raises ImproperlyConfigured as `database_url.parse` does."""
    given = database_url.parse(url)
    more_options = given.pop("options", "").strip()
    return {
        "ENGINE": "project.postgresql",
        "NAME": given.pop("dbname"),
        "USER": given.pop("user", ""),
        "PASSWORD": given.pop("password", ""),
        "HOST": given.pop("host", ""),
        "PORT": given.pop("port", ""),
        # One connection a thread, kept; one that is dead is replaced before it is used (project/postgresql).
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        # The server prepares the hot statements (queues/sql/statement.py) after a few runs.
        "OPTIONS": {
            "prepare_threshold": 5,
            # A server that vanished is noticed by TCP, one that only keeps silent by our clock (project/postgresql).
            "connect_timeout": 2,
            "tcp_user_timeout": 4000,
            "keepalives_idle": 2,
            "keepalives_interval": 1,
            "keepalives_count": 2,
            **({"options": more_options} if more_options else {}),
            **given,  # sslmode, connect_timeout ..: what the address says wins
        },
    }


ENV = read_environment()

DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key
ALLOWED_HOSTS = [host.strip() for host in ENV.allowed_hosts.split(",") if host.strip()]
DATABASES = {"default": database(ENV.database_url)}

INSTALLED_APPS = [
    "project.admin.site.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_prometheus",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "queues",
    "queues.page",
    "processing",
    "processing.schedules",
    *(OPTIONAL_KINDS[kinds] for kinds in optional_kinds(ENV)),
    *(["processing.webhooks"] if ENV.webhooks else []),
    *extra_apps(ENV.extra_apps),
]

KINDS = allowed_kinds(ENV)
TASKS = {"default": {"BACKEND": "processing.tasks.backend.OrderedBackend"}}  # read where processing.tasks is installed

MIDDLEWARE = [  # what is added here, queues/api/fast_path.py has to know
    "project.web.middleware.Edge",
    "django.middleware.security.SecurityMiddleware",
    "project.web.middleware.CrossOrigin",
    "project.web.middleware.Under",
]
MIDDLEWARE_UNDER = {
    "/static/": ["whitenoise.middleware.WhiteNoiseMiddleware"],
    "/admin/": [
        "django_prometheus.middleware.PrometheusBeforeMiddleware",
        "project.web.middleware.AdminPolicy",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "accounts.audit.StaffTrail",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django_prometheus.middleware.PrometheusAfterMiddleware",  # 0.1 ms a page: too much for the API
    ],
}
SILENCED_SYSTEM_CHECKS = [
    # They look for the admin's middleware in MIDDLEWARE; it is in MIDDLEWARE_UNDER.
    "admin.E408",
    "admin.E409",
    "admin.E410",
    "security.W002",
    "security.W003",
]

LOGGING_CONFIG = "project.telemetry.logs.configure"
LOGGING = {
    "level": ENV.log_level,
    "style": ENV.log_format if ENV.log_format != "auto" else "console" if DEBUG or sys.stderr.isatty() else "json",
}

# Mails wait in PostgreSQL and leave from the dispatcher (accounts/mail/outbox.py).
MAIL = email_url.parse(ENV.email_url or ("console:" if DEBUG else ""))
globals().update(MAIL)  # EMAIL_BACKEND, EMAIL_HOST ..
DEFAULT_FROM_EMAIL = ENV.default_from_email

ROOT_URLCONF = "project.urls"
APPEND_SLASH = False  # the API's paths have none; a redirect would lose a POST's body

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.login_throttle.LimitedBackend"]
PASSWORD_HASHERS = ["accounts.hashers.OrderlyArgon2"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "project" / "static"]
WHITENOISE_USE_FINDERS = True  # static files are served without a collectstatic
WHITENOISE_AUTOREFRESH = False

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# A key of its own, so that what signs tokens never signs anything else.
TOKEN_KEY = hashlib.sha256(b"access and refresh tokens:" + SECRET_KEY.encode()).hexdigest()
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(seconds=ENV.access_token_seconds),
    "REFRESH_TOKEN_LIFETIME": timedelta(seconds=ENV.refresh_token_seconds),
    "SIGNING_KEY": TOKEN_KEY,
    "ALGORITHM": "HS256",
    "ISSUER": ENV.token_issuer,
    "AUDIENCE": ENV.token_audience,
    "USER_ID_CLAIM": "sub",
}
TOKEN_KEYS = ENV.token_keys

BODY_LIMIT = ENV.body_limit
BATCH_BODY_LIMIT = ENV.batch_body_limit
JSON_DEPTH = ENV.json_depth
CORS_ORIGINS = [origin.strip() for origin in ENV.cors_origins.split(",") if origin.strip()]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.SessionTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["project.rest.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["project.rest.renderers.FastJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "project.rest.renderers.JSONOnly",
    "DEFAULT_SCHEMA_CLASS": "project.rest.openapi.ProblemSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "project.rest.exception_handler.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Ordered work, per user",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",  # its schemas are JSON Schema, as those of the kinds are
    "DESCRIPTION": DESCRIPTION,
    "TAGS": TAGS,
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "project.rest.examples.in_order"],
    "APPEND_COMPONENTS": {"securitySchemes": {"Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}},
}

if not DEBUG:
    SECURE_HSTS_SECONDS = 365 * 86400
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]  # asked from inside, without TLS
    if ENV.trusted_proxies:
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
