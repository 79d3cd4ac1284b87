"""Django's settings, made from what the deployment sets (project/environment.py)."""

import hashlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from project import email_url
from project.environment import OPTIONAL_KINDS, allowed_kinds, optional_kinds, read_environment
from project.postgresql import url as database_url
from project.rest.introduction import DESCRIPTION, TAGS
from project.start import extra_apps

BASE_DIR = Path(__file__).resolve().parent.parent


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
    "corsheaders",
    "django_prometheus",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "queues",
    "queues.page",
    "processing",
    "processing.schedules",
    "processing.kafka",
    *(OPTIONAL_KINDS[kinds] for kinds in optional_kinds(ENV)),
    *(["processing.webhooks"] if ENV.webhooks else []),
    *extra_apps(ENV.extra_apps),
]

KINDS = allowed_kinds(ENV)
TASKS = {"default": {"BACKEND": "processing.tasks.backend.OrderedBackend"}}  # read where processing.tasks is installed

MIDDLEWARE = [  # what is added here, queues/api/fast_path.py has to know
    "project.web.middleware.Edge",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "project.web.middleware.Under",
]
MIDDLEWARE_UNDER = {
    "/static/": ["project.web.middleware.Compressed", "whitenoise.middleware.WhiteNoiseMiddleware"],
    "/admin/": [
        "django_prometheus.middleware.PrometheusBeforeMiddleware",
        "project.web.middleware.AdminPolicy",
        "project.web.middleware.LittleFromStrangers",
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

# Scripts of these origins may call the API, without credentials: tokens travel in a header. Where there are none, no
# other origin's script may. X-Requested-With is not among the headers: accounts/api/cookie.py relies on it.
CORS_ALLOWED_ORIGINS = [origin.strip() for origin in ENV.cors_origins.split(",") if origin.strip()]
CORS_URLS_REGEX = r"/api/"
CORS_ALLOW_METHODS = ["GET", "POST", "PATCH", "DELETE"]
CORS_ALLOW_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
    "traceparent",
    "tracestate",
]
CORS_EXPOSE_HEADERS = [
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
]
CORS_PREFLIGHT_MAX_AGE = 600

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
