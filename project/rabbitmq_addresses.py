"""Where RabbitMQ is: one address or several, as RABBITMQ_URL gives them."""

from urllib.parse import urlsplit, urlunsplit


def amqp_urls(text: str) -> list[str]:
    """One URL for each address: `amqp://user:password@a:5672,b:5673/vhost`, or whole URLs with `;` or `,` between them.

    Raises ValueError with a sentence.
    """
    urls: list[str] = []
    for part in text.replace(",amqp", ";amqp").split(";"):
        url = urlsplit(part.strip())
        if url.scheme not in ("amqp", "amqps"):
            raise ValueError("RABBITMQ_URL must begin with amqp:// or amqps://, as must each further address in it.")
        login, at, hosts = url.netloc.rpartition("@")
        for host in hosts.split(","):
            if not host or host.startswith(":"):
                raise ValueError("RABBITMQ_URL names no host, or an empty one between commas.")
            one = url._replace(netloc=f"{login}{at}{host}")
            try:
                _ = one.port
            except ValueError:
                raise ValueError(f"RABBITMQ_URL has a port that is no number: {host}.") from None
            urls.append(urlunsplit(one))
    return urls
