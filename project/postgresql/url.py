"""What DATABASE_URL says, read as PostgreSQL's own client reads it.

Not by dj-database-url: it refuses several hosts with ports, and passes on parameters that the client does not know.
"""

import re

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

EXAMPLE = "DATABASE_URL does not fit: write postgres://user:password@host:port/name?sslmode=verify-full."
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def parse(url: str) -> dict[str, str]:
    """The parameters of a connection by libpq's names: dbname, host, sslmode ..

    So several hosts (`a,b`) and all that may stand in the query are honoured. Raises ImproperlyConfigured when it is
    no such address, and for a parameter that the client does not know. No password is shown.
    """
    if not url.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(EXAMPLE)
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError as wrong:  # its text may quote the password
        unknown = re.search(r'URI query parameter: "(\w+)"', str(wrong))
        known_not = f" PostgreSQL's client knows no parameter {unknown[1]!r}." if unknown else ""
        raise ImproperlyConfigured(EXAMPLE + known_not) from None
    ports = [port for port in given.get("port", "").split(",") if port]
    if not given.get("dbname") or not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise ImproperlyConfigured(EXAMPLE)
    if given.get("sslmode", "prefer") not in SSL_MODES:
        raise ImproperlyConfigured(f"DATABASE_URL does not fit: sslmode is one of {', '.join(SSL_MODES)}.")
    if not given.get("connect_timeout", "5").isdecimal():
        raise ImproperlyConfigured("DATABASE_URL does not fit: connect_timeout is a whole number of seconds.")
    return given
