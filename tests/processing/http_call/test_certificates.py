"""A certificate must be trusted and name the host."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone

from processing.http_call import transport
from processing.http_call.transport import CallFailed
from tests.processing.http_call.conftest import Place, call


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate for good.test that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "good.test")])
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("good.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "good.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_must_be_trusted_and_name_the_host(
    place: Place, names: dict[str, list[list[str]]], authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority)
    server.sni_callback = lambda _, name, __: asked_for.append(name)
    place.socket = server.wrap_socket(place.socket, server_side=True)
    place.page()(lambda visit: visit.answer(200, b"safe"))
    names |= {"good.test": [["127.0.0.1"]], "good.test.": [["127.0.0.1"]], "bad.test": [["127.0.0.1"]]}
    transport.tls.cache_clear()
    with pytest.raises(CallFailed, match="certificate verify failed"):
        call(place.at(host="good.test", scheme="https"))
    transport.tls.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    for host in ("good.test", "good.test."):
        assert call(place.at(host=host, scheme="https"))["body"] == "safe"
    with pytest.raises(CallFailed, match=r"bad\.test"):
        call(place.at(host="bad.test", scheme="https"))
    assert asked_for == ["good.test", "good.test", "good.test", "bad.test"]
    transport.tls.cache_clear()
