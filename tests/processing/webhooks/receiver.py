"""A receiver of webhooks on this machine: HTTPS with a certificate of its own authority, and answers as told."""

import base64
import hmac
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone


def make_authority(path: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("receiver.test")]
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return path


class Got(NamedTuple):
    """One POST, as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def message(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> Any:
        return self.json["data"]["payload"]

    def signed_with(self, secret: str) -> bool:
        """By the specification's words, and by nothing of ours."""
        content = b".".join([self.message.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        key = base64.b64decode(secret[len("whsec_") :])
        expected = "v1," + base64.b64encode(hmac.new(key, content, "sha256").digest()).decode()
        return expected in self.headers["webhook-signature"].split(" ")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Receiver"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        got = Got(self.path, {n.lower(): v for n, v in self.headers.items()}, body, time.monotonic())
        self.server.got.append(got)
        status, text, headers = self.server.answers.get(self.path, lambda _: (204, b"", {}))(got)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


Reply = tuple[int, bytes, dict[str, str]]


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Got] = []
        self.answers: dict[str, Callable[[Got], Reply]] = {}
        self.closing = threading.Event()
        self.scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def at(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.server_port}{path}"

    def to(self, path: str) -> list[Got]:
        return [got for got in self.got if got.path == path]

    def answer(self, path: str, *statuses: int, body: bytes = b"", **headers: str) -> None:
        """These statuses one after another; the last one stays."""
        left = list(statuses)
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        def reply(_: Got) -> Reply:
            return (left.pop(0) if len(left) > 1 else left[0]), body, named

        self.answers[path] = reply

    def hang(self, path: str) -> None:
        """Take the message and never answer."""

        def reply(_: Got) -> Reply:
            self.closing.wait(60)
            return 204, b"", {}

        self.answers[path] = reply

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def receiving(certificate: Path | None) -> Iterator[Receiver]:
    receiver = Receiver(certificate)
    thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        receiver.shutdown()
        thread.join(10)
        receiver.server_close()
